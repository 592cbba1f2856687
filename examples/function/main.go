// Command function serves one call, and leaves.
package main

import (
	"context"
	"log"

	"github.com/cb02dfca/micro/pkg/micro"
)

// Job is what there is to do.
type Job struct {
	Name string `json:"name" doc:"what to call the job" required:"true"`
}

// Result is what came of it.
type Result struct {
	Done string `json:"done"`
}

func main() {
	fn, err := micro.NewFunction("job", micro.FromEnv(micro.Drivers{}))
	if err != nil {
		log.Fatal(err)
	}
	_ = micro.Handle(fn.Service, "Job.Do", func(_ context.Context, job *Job) (*Result, error) {
		return &Result{Done: job.Name}, nil
	})
	if err := fn.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
	log.Print("served one call")
}
