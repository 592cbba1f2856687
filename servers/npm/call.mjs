// Clients that others have written call a service: node call.mjs http://127.0.0.1:8080. It prints what each got, as one object.
import {decode, encode} from "@msgpack/msgpack"
import {BSON} from "bson"
import jayson from "jayson"
import {JSONRPCClient} from "json-rpc-2.0"

const url = process.argv[2]
const got = {}

async function keep(name, does) {
	try {
		got[name] = (await does()) ?? "nothing"
	} catch (e) {
		got[name] = {code: e.code, message: e.message, data: e.data}
	}
}

async function post(path, type, body) {
	const rsp = await fetch(url + path, {method: "POST", headers: {"Content-Type": type}, body})
	return {status: rsp.status, type: rsp.headers.get("content-type"), body: new Uint8Array(await rsp.arrayBuffer())}
}

// jayson: what its callback gets is the whole answer.
for (const version of [2, 1]) {
	const {hostname, port} = new URL(url)
	const client = jayson.Client.http({hostname, port, path: "/", version})
	const call = (...args) => new Promise((done, fail) => client.request(...args, (err, rsp) => (err ? fail(err) : done(strip(rsp)))))
	const strip = rsp => (Array.isArray(rsp) ? rsp.map(strip) : rsp && {...rsp, id: typeof rsp.id})
	const name = what => `jayson ${version}: ${what}`
	await keep(name("a call"), () => call("Say.Hello", version === 1 ? [{name: "x"}] : {name: "x"}))
	await keep(name("by place"), () => call("Math.Subtract", [42, 23]))
	await keep(name("an error"), () => call("Say.Hello", [{name: "bad"}]))
	await keep(name("no such method"), () => call("Say.Nope", []))
	await keep(name("bad params"), () => call("Say.Hello", [{nme: "x"}]))
	await keep(name("a notification"), () => call("Say.Hello", [{name: "x"}], null))
	if (version === 2) {
		await keep(name("a batch"), () =>
			call([
				client.request("Say.Hello", {name: "x"}, undefined, false),
				client.request("Math.Subtract", {minuend: 1, subtrahend: 2}, undefined, false),
				client.request("Say.Hello", {name: "y"}, null, false),
				client.request("Say.Nope", [], undefined, false),
			]))
		await keep(name("a batch of notifications"), () =>
			call([client.request("Say.Hello", {name: "x"}, null, false), client.request("Say.Nope", [], null, false)]))
	}
}

// json-rpc-2.0, with the sender that its documentation gives.
const client = new JSONRPCClient(request =>
	fetch(url + "/", {method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(request)}).then(rsp => {
		if (rsp.status === 200) return rsp.json().then(answer => client.receive(answer))
		if (request.id !== undefined) return Promise.reject(new Error(rsp.statusText))
	}))
await keep("json-rpc-2.0: a call", () => client.request("Say.Hello", {name: "x"}))
await keep("json-rpc-2.0: by place", () => client.request("Math.Subtract", [42, 23]))
await keep("json-rpc-2.0: an error", () => client.request("Say.Hello", {name: "bad"}))
await keep("json-rpc-2.0: a notification", () => client.notify("Say.Hello", {name: "x"}))
await keep("json-rpc-2.0: a batch", () =>
	client.requestAdvanced([
		{jsonrpc: "2.0", id: "a", method: "Say.Hello", params: {name: "x"}},
		{jsonrpc: "2.0", id: 0, method: "Say.Nope"},
	]).then(all => all.map(one => one.result ?? one.error.code)))

// MessagePack and BSON, as the body of a plain call.
// The keys are in the order in which they come back.
const all = {bytes: new Uint8Array([0, 255]), float: 1.5, large: 2 ** 40, list: [1, "two", {three: 3}], negative: -7, no: null, small: 5, text: "größe", yes: true}
await keep("msgpack", async () => {
	const {status, type, body} = await post("/Say.Echo", "application/msgpack", encode(all))
	const back = decode(body)
	return {status, type, same: JSON.stringify(back) === JSON.stringify(all), bytes: [...back.bytes]}
})
await keep("bson", async () => {
	const {status, type, body} = await post("/Say.Echo", "application/bson", BSON.serialize({...all, bytes: new BSON.Binary(all.bytes)}))
	const back = BSON.deserialize(body, {promoteBuffers: true})
	return {status, type, same: JSON.stringify({...back, bytes: 0}) === JSON.stringify({...all, bytes: 0}), bytes: [...back.bytes]}
})

// BSON-RPC: the document of the header, and that of the body behind it.
await keep("bson-rpc", async () => {
	const header = BSON.serialize({ServiceMethod: "Say.Hello", Seq: 7})
	const {status, body} = await post("/", "application/bson-rpc", Buffer.concat([header, BSON.serialize({name: "x"})]))
	const length = Buffer.from(body).readInt32LE(0)
	return {status, header: BSON.deserialize(body.subarray(0, length)), body: BSON.deserialize(body.subarray(length))}
})

console.log(JSON.stringify(got))
