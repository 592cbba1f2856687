package envelope

// The two ways of Decode.
var (
	DecodeFast = decodeFast
	DecodeAny  = decodeAny
)
