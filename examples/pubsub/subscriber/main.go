// Command subscriber takes the messages of a topic, twice: as one of all, and as a member of a queue.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/micro"
)

// User is the message.
type User struct {
	Name string `json:"name"`
}

func main() {
	svc, err := micro.New("mail", micro.FromEnv(micro.Drivers{}))
	if err != nil {
		log.Fatal(err)
	}
	// Every subscriber without a queue gets each message.
	_ = micro.Subscribe(svc, "user.created", func(_ context.Context, u *User) error {
		fmt.Println("seen", u.Name)
		return nil
	})
	// Of a queue's members, one gets each message: start this program twice and see.
	_ = micro.Subscribe(svc, "user.created", func(_ context.Context, u *User) error {
		if u.Name == "" {
			return fmt.Errorf("a user without a name") // the publisher is told
		}
		fmt.Println("mailed", u.Name)
		return nil
	}, broker.Queue("mailers"))
	if err := svc.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
