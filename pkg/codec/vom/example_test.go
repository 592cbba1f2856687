package vom_test

import (
	"fmt"
	"log"

	"github.com/cb02dfca/micro/pkg/codec/vom"
)

// Item has the name that it has in Vanadium.
type Item struct {
	ID    string
	Count int32
	Sizes []float64
}

func (Item) VDLReflect(struct {
	Name string `vdl:"example.com/shop.Item"`
}) {
}

// A body tells its types. It is read into another Go type by the names of the fields, or without one.
func Example() {
	c := vom.New()
	body, err := c.Append(nil, Item{ID: "7", Sizes: []float64{1, 2.5}})
	if err != nil {
		log.Fatal(err)
	}
	var article struct {
		ID    string
		Sizes [2]float32
	}
	if err := c.Unmarshal(body, &article); err != nil {
		log.Fatal(err)
	}
	fmt.Println(article)

	var anything any
	if err := c.Unmarshal(body, &anything); err != nil {
		log.Fatal(err)
	}
	fmt.Println(anything)

	fmt.Println(c.Unmarshal(body, new(string)))
	// Output:
	// {7 [1 2.5]}
	// map[Count:0 ID:7 Sizes:[1 2.5]]
	// codec/vom: at offset 65: example.com/shop.Item: does not go into string
}
