package delivery

import (
	"context"
	"sync"

	"github.com/cb02dfca/micro/pkg/broker"
)

// Place tells where messages of one topic stand among those of a Publish; nil where they are all of them.
type Place []int

// Of gives the number in the Publish of the topic's message i.
func (p Place) Of(i int) int {
	if p == nil {
		return i
	}
	return p[i]
}

// ByTopic delivers ms to the targets of their topics, all at the same time. targets gives those of a topic, with the
// messages for it and where they stand; an error of it ends ByTopic before anything was sent.
func ByTopic(ctx context.Context, ms []*broker.Message, targets func(topic string, ms []*broker.Message, at Place) ([]Target, error)) ([]broker.Delivery, error) {
	topics := split(ms)
	all := make([][]Target, len(topics))
	for i, t := range topics {
		var err error
		if all[i], err = targets(t.name, t.messages, t.at); err != nil {
			return nil, err
		}
	}
	if len(topics) == 1 {
		return Fan(ctx, len(ms), all[0]), nil
	}
	results := make([][]broker.Delivery, len(topics))
	var wg sync.WaitGroup
	for i, t := range topics {
		wg.Go(func() { results[i] = spell(Fan(ctx, len(t.messages), all[i]), t.at) })
	}
	wg.Wait()
	deliveries := []broker.Delivery{}
	for _, r := range results {
		deliveries = append(deliveries, r...)
	}
	return deliveries, nil
}

// topic is the messages of one topic.
type topic struct {
	name     string
	messages []*broker.Message
	at       Place
}

// split sorts ms by topic, in the order in which the topics come.
func split(ms []*broker.Message) []topic {
	one := true
	for _, m := range ms[1:] {
		if one = m.Topic == ms[0].Topic; !one {
			break
		}
	}
	if one {
		return []topic{{name: ms[0].Topic, messages: ms}}
	}
	var topics []topic
	index := map[string]int{}
	for i, m := range ms {
		n, ok := index[m.Topic]
		if !ok {
			n, index[m.Topic] = len(topics), len(topics)
			topics = append(topics, topic{name: m.Topic})
		}
		t := &topics[n]
		t.messages, t.at = append(t.messages, m), append(t.at, i)
	}
	return topics
}

// spell gives the deliveries of a topic's messages by the messages' numbers in the Publish: an entry for each run of
// them that is one there too.
func spell(ds []broker.Delivery, at Place) []broker.Delivery {
	var all []broker.Delivery
	for _, d := range ds {
		for i := d.First; i <= d.Last; {
			j := i + 1
			for j <= d.Last && at[j] == at[j-1]+1 {
				j++
			}
			e := d
			e.First, e.Last = at[i], at[j-1]
			all = append(all, e)
			i = j
		}
	}
	return all
}
