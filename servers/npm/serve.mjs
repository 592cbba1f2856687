// A server of jayson's, until standard input ends: what others' JSON-RPC servers are like. It says its port in a line.
import jayson from "jayson"

const server = new jayson.Server({
	// By name or by place, as the caller likes.
	subtract: (params, done) => {
		const [minuend, subtrahend] = Array.isArray(params) ? params : [params.minuend, params.subtrahend]
		done(null, minuend - subtrahend)
	},
	"Say.Hello": (params, done) =>
		params.name === "bad"
			? done({code: 409, message: "taken", data: {by: "x"}})
			: done(null, {msg: "Hello " + params.name}),
})

const http = server.http().listen(0, "127.0.0.1", () => console.log(http.address().port))
process.stdin.resume().on("end", () => process.exit())
