package vom_test

import (
	"fmt"
	"reflect"
	"time"
)

// The types of the vectors. The method gives them the names that they had when the vectors were made.
type (
	Inner struct{ X, Y int32 }
	One   struct{ Name string }
	Empty struct{}
	Seven struct {
		Service string
		Method  string
		ID      uint64
		Body    []byte
		Header  map[string]string
		Ratio   float64
		Offset  int64
	}
	Outer struct {
		Name   string
		In     Inner
		Opt    *Inner
		List   []Inner
		ByName map[string]Inner
	}
	Node struct {
		Value int64
		Next  *Node
	}
	Tree struct {
		Label string
		Kids  []Tree
	}
	Ping     struct{ Pong *Pong }
	Pong     struct{ Ping *Ping }
	Envelope struct {
		Header map[string]string
		Body   []byte
	}
	Twice struct {
		A []Inner
		B []Inner
	}
	Floats struct{ F, G float64 }
	Emb    struct {
		Inner
		Z int32
	}
	Hidden struct {
		A int32
		b int32
		C int32
	}
	Ptrs struct {
		I *int64
		S *string
	}
	Wide struct {
		B   bool
		U8  uint8
		U16 uint16
		U32 uint32
		U64 uint64
		I8  int8
		I16 int16
		I32 int32
		I64 int64
		F32 float32
		F64 float64
		S   string
		Arr [2]int16
		Set map[string]struct{}
		L   []string
		Any any
	}
	Celsius float64
	Title   string
	Flag    bool
	Ident   uint64
	MyByte  byte
	Names   []string
	Blob    []byte
	Digest  [4]byte
	MyBytes []MyByte
	Set     map[string]struct{}
	Meta    map[string]string
	Color   int
	Shape   interface {
		Index() int
		VDLReflect(shapeReflect)
	}
	ShapeCircle struct{ Value float64 }
	ShapeBox    struct{ Value Inner }
	ShapeLabel  struct{ Value string }
	Paint       struct {
		C Color
		S Shape
	}
	Box   struct{ V any }
	Boxes struct {
		Name string
		Vs   []any
		Last any
	}
	Typed struct {
		Name string
		T    string
	}
	Dir   map[string]Dir
	Nest  []Nest
	Chain struct {
		V    any
		Next *Chain
	}
	Pair[T any] struct{ A, B T }
	Zero5       struct{ N int32 }
	HasZero     struct{ F Zero5 }
	HasIface    struct{ F fmt.Stringer }
	Timed       struct {
		T time.Time
		D time.Duration
	}
	Result struct {
		Value int64
		Err   error
	}
	shapeReflect struct {
		Name  string `vdl:"example.com/vec.Shape"`
		Type  Shape
		Union struct {
			Circle ShapeCircle
			Box    ShapeBox
			Label  ShapeLabel
		}
	}
)

func (Inner) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Inner"`
}) {
}

func (One) VDLReflect(struct {
	Name string `vdl:"example.com/vec.One"`
}) {
}

func (Empty) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Empty"`
}) {
}

func (Seven) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Seven"`
}) {
}

func (Outer) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Outer"`
}) {
}

func (Node) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Node"`
}) {
}

func (Tree) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Tree"`
}) {
}

func (Ping) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Ping"`
}) {
}

func (Pong) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Pong"`
}) {
}

func (Envelope) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Envelope"`
}) {
}

func (Twice) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Twice"`
}) {
}

func (Floats) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Floats"`
}) {
}

func (Emb) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Emb"`
}) {
}

func (Hidden) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Hidden"`
}) {
}

func (Ptrs) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Ptrs"`
}) {
}

func (Wide) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Wide"`
}) {
}

func (Celsius) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Celsius"`
}) {
}

func (Title) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Title"`
}) {
}

func (Flag) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Flag"`
}) {
}

func (Ident) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Ident"`
}) {
}

func (MyByte) VDLReflect(struct {
	Name string `vdl:"example.com/vec.MyByte"`
}) {
}

func (Names) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Names"`
}) {
}

func (Blob) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Blob"`
}) {
}

func (Digest) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Digest"`
}) {
}

func (MyBytes) VDLReflect(struct {
	Name string `vdl:"example.com/vec.MyBytes"`
}) {
}

func (Set) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Set"`
}) {
}

func (Meta) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Meta"`
}) {
}

func (Paint) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Paint"`
}) {
}

func (Box) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Box"`
}) {
}

func (Boxes) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Boxes"`
}) {
}

func (Typed) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Typed"`
}) {
}

func (Dir) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Dir"`
}) {
}

func (Nest) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Nest"`
}) {
}

func (Chain) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Chain"`
}) {
}

func (Zero5) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Zero5"`
}) {
}

func (HasZero) VDLReflect(struct {
	Name string `vdl:"example.com/vec.HasZero"`
}) {
}

func (HasIface) VDLReflect(struct {
	Name string `vdl:"example.com/vec.HasIface"`
}) {
}

func (Timed) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Timed"`
}) {
}

func (Result) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Result"`
}) {
}

func (Pair[T]) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Pair[int32]"`
}) {
}

func (Color) VDLReflect(struct {
	Name string `vdl:"example.com/vec.Color"`
	Enum struct{ Red, Green, Blue string }
}) {
}

func (ShapeCircle) VDLReflect(shapeReflect) {}
func (ShapeBox) VDLReflect(shapeReflect)    {}
func (ShapeLabel) VDLReflect(shapeReflect)  {}
func (ShapeCircle) Index() int              { return 0 }
func (ShapeBox) Index() int                 { return 1 }
func (ShapeLabel) Index() int               { return 2 }

func (z Zero5) IsZero() bool { return z.N == 5 }

func (h Hidden) String() string { return fmt.Sprint(h.A, h.b, h.C) }

// goTypes are the Go types of the vectors, by their source text.
var goTypes = map[string]reflect.Type{
	"bool":                reflect.TypeFor[bool](),
	"int8":                reflect.TypeFor[int8](),
	"int16":               reflect.TypeFor[int16](),
	"int32":               reflect.TypeFor[int32](),
	"int64":               reflect.TypeFor[int64](),
	"int":                 reflect.TypeFor[int](),
	"uint8":               reflect.TypeFor[uint8](),
	"uint16":              reflect.TypeFor[uint16](),
	"uint32":              reflect.TypeFor[uint32](),
	"uint64":              reflect.TypeFor[uint64](),
	"float32":             reflect.TypeFor[float32](),
	"float64":             reflect.TypeFor[float64](),
	"string":              reflect.TypeFor[string](),
	"[]byte":              reflect.TypeFor[[]byte](),
	"[][]byte":            reflect.TypeFor[[][]byte](),
	"[]string":            reflect.TypeFor[[]string](),
	"[]int64":             reflect.TypeFor[[]int64](),
	"[]int32":             reflect.TypeFor[[]int32](),
	"[]bool":              reflect.TypeFor[[]bool](),
	"[]float64":           reflect.TypeFor[[]float64](),
	"[][]string":          reflect.TypeFor[[][]string](),
	"[][]uint16":          reflect.TypeFor[[][]uint16](),
	"[3]int32":            reflect.TypeFor[[3]int32](),
	"[4]byte":             reflect.TypeFor[[4]byte](),
	"[2][2]bool":          reflect.TypeFor[[2][2]bool](),
	"map[string]struct{}": reflect.TypeFor[map[string]struct{}](),
	"map[int32]struct{}":  reflect.TypeFor[map[int32]struct{}](),
	"map[string]int64":    reflect.TypeFor[map[string]int64](),
	"map[string]string":   reflect.TypeFor[map[string]string](),
	"map[string][]byte":   reflect.TypeFor[map[string][]byte](),
	"map[byte]byte":       reflect.TypeFor[map[byte]byte](),
	"map[string][]string": reflect.TypeFor[map[string][]string](),
	"map[Inner]string":    reflect.TypeFor[map[Inner]string](),
	"struct{ A int32; B string }": reflect.TypeFor[struct {
		A int32
		B string
	}](),
	"struct{ Metadata map[string]string; Body []byte }": reflect.TypeFor[struct {
		Metadata map[string]string
		Body     []byte
	}](),
	"[]struct{ K string }": reflect.TypeFor[[]struct{ K string }](),
	"Empty":                reflect.TypeFor[Empty](),
	"One":                  reflect.TypeFor[One](),
	"Seven":                reflect.TypeFor[Seven](),
	"Outer":                reflect.TypeFor[Outer](),
	"[]Inner":              reflect.TypeFor[[]Inner](),
	"map[string]Inner":     reflect.TypeFor[map[string]Inner](),
	"Node":                 reflect.TypeFor[Node](),
	"Tree":                 reflect.TypeFor[Tree](),
	"Ping":                 reflect.TypeFor[Ping](),
	"Envelope":             reflect.TypeFor[Envelope](),
	"Twice":                reflect.TypeFor[Twice](),
	"Floats":               reflect.TypeFor[Floats](),
	"Emb":                  reflect.TypeFor[Emb](),
	"Hidden":               reflect.TypeFor[Hidden](),
	"Ptrs":                 reflect.TypeFor[Ptrs](),
	"Wide":                 reflect.TypeFor[Wide](),
	"*One":                 reflect.TypeFor[*One](),
	"[]*One":               reflect.TypeFor[[]*One](),
	"*Node":                reflect.TypeFor[*Node](),
	"*int64":               reflect.TypeFor[*int64](),
	"Celsius":              reflect.TypeFor[Celsius](),
	"Title":                reflect.TypeFor[Title](),
	"Flag":                 reflect.TypeFor[Flag](),
	"Ident":                reflect.TypeFor[Ident](),
	"MyByte":               reflect.TypeFor[MyByte](),
	"Names":                reflect.TypeFor[Names](),
	"Blob":                 reflect.TypeFor[Blob](),
	"Digest":               reflect.TypeFor[Digest](),
	"MyBytes":              reflect.TypeFor[MyBytes](),
	"Set":                  reflect.TypeFor[Set](),
	"Meta":                 reflect.TypeFor[Meta](),
	"[]Ident":              reflect.TypeFor[[]Ident](),
	"Color":                reflect.TypeFor[Color](),
	"[]Color":              reflect.TypeFor[[]Color](),
	"Shape":                reflect.TypeFor[Shape](),
	"[]Shape":              reflect.TypeFor[[]Shape](),
	"Paint":                reflect.TypeFor[Paint](),
	"any":                  reflect.TypeFor[any](),
	"Box":                  reflect.TypeFor[Box](),
	"[]any":                reflect.TypeFor[[]any](),
	"map[string]any":       reflect.TypeFor[map[string]any](),
	"Boxes":                reflect.TypeFor[Boxes](),
	"*vdl.Type":            reflect.TypeFor[string](),
	"Typed":                reflect.TypeFor[Typed](),
	"[]*vdl.Type":          reflect.TypeFor[[]string](),
	"[]int8":               reflect.TypeFor[[]int8](),
	"[][3]byte":            reflect.TypeFor[[][3]byte](),
	"[]Empty":              reflect.TypeFor[[]Empty](),
	"map[float64]bool":     reflect.TypeFor[map[float64]bool](),
	"Dir":                  reflect.TypeFor[Dir](),
	"Nest":                 reflect.TypeFor[Nest](),
	"Chain":                reflect.TypeFor[Chain](),
	"Pair[int32]":          reflect.TypeFor[Pair[int32]](),
	"HasZero":              reflect.TypeFor[HasZero](),
	"HasIface":             reflect.TypeFor[HasIface](),
	"struct{ F float32 }":  reflect.TypeFor[struct{ F float32 }](),
	"time.Time":            reflect.TypeFor[time.Time](),
	"Timed":                reflect.TypeFor[Timed](),
	"time.Duration":        reflect.TypeFor[time.Duration](),
	"complex64":            reflect.TypeFor[complex64](),
	"complex128":           reflect.TypeFor[complex128](),
	"[]error":              reflect.TypeFor[[]error](),
	"error":                reflect.TypeFor[error](),
	"Result":               reflect.TypeFor[Result](),
	"byte":                 reflect.TypeFor[byte](),
	"Inner":                reflect.TypeFor[Inner](),
}
