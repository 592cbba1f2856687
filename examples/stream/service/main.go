// Command service has a stream of each kind.
package main

import (
	"context"
	"log"
	"time"

	"github.com/cb02dfca/micro/pkg/micro"
)

// Number is the message of all streams.
type Number struct {
	N int `json:"n"`
}

func main() {
	svc, err := micro.New("numbers", micro.FromEnv(micro.Drivers{}))
	if err != nil {
		log.Fatal(err)
	}
	_ = micro.HandleServerStream(svc, "Numbers.Count", count)
	_ = micro.HandleClientStream(svc, "Numbers.Sum", sum)
	_ = micro.HandleBidi(svc, "Numbers.Double", double)
	if err := svc.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// count gives the numbers from 1 to n, one each hundredth of a second.
func count(ctx context.Context, to *Number, out *micro.Sender[Number]) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for n := 1; n <= to.N; n++ {
		select {
		case <-ctx.Done(): // the caller has gone
			return ctx.Err()
		case <-tick.C:
		}
		if err := out.Send(&Number{N: n}); err != nil {
			return err
		}
	}
	return nil
}

// sum adds up what comes.
func sum(_ context.Context, in *micro.Receiver[Number]) (*Number, error) {
	total := 0
	for n, err := range in.All() {
		if err != nil {
			return nil, err
		}
		total += n.N
	}
	return &Number{N: total}, nil
}

// double answers each number as it comes.
func double(_ context.Context, st *micro.Stream[Number, Number]) error {
	for n, err := range st.All() {
		if err != nil {
			return err
		}
		if err := st.Send(&Number{N: 2 * n.N}); err != nil {
			return err
		}
	}
	return nil
}
