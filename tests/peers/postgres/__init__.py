"""Real PostgreSQL servers, and on top of them a Supabase: PostgREST, roles, keys, a gateway."""
