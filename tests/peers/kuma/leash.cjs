// Preloaded into the real Kuma: it dies with its test and talks to loopback only.

"use strict";

const net = require("node:net");

// The test holds the other end of stdin. Whatever ends the test, kill -9 included, closes it.
process.stdin.resume();
process.stdin.on("close", () => process.exit(0));
process.stdin.on("end", () => process.exit(0));

const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|::1)$/;
const connect = net.Socket.prototype.connect;

net.Socket.prototype.connect = function (...args) {
    const options = Array.isArray(args[0]) ? args[0][0] : args[0];
    const host = options && typeof options === "object" ? options.host : undefined;
    if (host !== undefined && host !== null && !LOOPBACK.test(host)) {
        process.nextTick(() => this.destroy(new Error(`kept on loopback: ${host}`)));
        return this;
    }
    return connect.apply(this, args);
};
