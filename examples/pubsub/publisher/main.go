// Command publisher publishes a message and tells who took it.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/cb02dfca/micro/pkg/micro"
)

type user struct {
	Name string `json:"name"`
}

func main() {
	name := ""
	if len(os.Args) > 1 {
		name = os.Args[1]
	}
	if err := run(context.Background(), name); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, name string) error {
	svc, err := micro.New("signup", micro.FromEnv(micro.Drivers{}))
	if err != nil {
		return err
	}
	defer func() { _ = svc.Close() }()
	report, err := svc.Client().Publish(ctx, "user.created", &user{Name: name})
	if err != nil {
		return err
	}
	fmt.Printf("%d of %d subscribers took it\n", report.Delivered(), len(report.Deliveries))
	if err := report.Err(); err != nil {
		fmt.Println(err) // publishing again, or not, is the publisher's to decide
	}
	return nil
}
