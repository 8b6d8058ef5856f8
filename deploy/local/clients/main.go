// Command clients sends events with the client of Go servers: `clients HOST WRITE_KEY RUN`.
package main

import (
	"encoding/json"
	"log"
	"os"

	"github.com/segmentio/analytics-go/v3"
)

type report struct{ failed []error }

func (r *report) Success(analytics.Message)              {}
func (r *report) Failure(_ analytics.Message, err error) { r.failed = append(r.failed, err) }

func main() {
	host, key, run := os.Args[1], os.Args[2], os.Args[3]
	text, err := os.ReadFile("events.json")
	if err != nil {
		log.Fatal(err)
	}
	var events []struct {
		Name       string
		Properties analytics.Properties
	}
	if err := json.Unmarshal(text, &events); err != nil {
		log.Fatal(err)
	}
	var outcome report
	client, err := analytics.NewWithConfig(key, analytics.Config{Endpoint: host, Callback: &outcome})
	if err != nil {
		log.Fatal(err)
	}
	traits := analytics.NewTraits().Set("clients_run", run).Set("client", "go")
	messages := []analytics.Message{analytics.Identify{UserId: "go-user", Traits: traits}}
	for _, event := range events {
		properties := event.Properties.Set("clients_run", run).Set("client", "go")
		messages = append(messages, analytics.Track{UserId: "go-user", Event: event.Name, Properties: properties})
	}
	for _, message := range messages {
		if err := client.Enqueue(message); err != nil {
			log.Fatal(err)
		}
	}
	if err := client.Close(); err != nil {
		log.Fatal(err)
	}
	if len(outcome.failed) > 0 {
		log.Fatal(outcome.failed)
	}
}
