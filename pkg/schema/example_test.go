package schema_test

import (
	"fmt"
	"reflect"

	"github.com/cb02dfca/micro/pkg/schema"
)

type HelloRequest struct {
	Name  string `json:"name" doc:"who to greet" required:"true" example:"Ada"`
	Times int32  `json:"times,omitempty" doc:"how often" default:"1"`
}

func ExampleOf() {
	s := schema.Of(reflect.TypeFor[HelloRequest]())
	fmt.Println(string(s.Example()))
	for _, p := range s.Check([]byte(`{"nme":"x","times":"abc"}`)) {
		fmt.Println(p)
	}
	// Output:
	// {"name":"Ada","times":1}
	// nme: unknown field, did you mean "name"?
	// times: want int32, got "abc"
}
