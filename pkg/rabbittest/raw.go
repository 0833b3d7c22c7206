package rabbittest

import (
	"context"
	"errors"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Do runs f on a channel of a fresh connection and returns f's error. The library under test is not involved.
func (h *Host) Do(f func(*amqp.Channel) error) error {
	ginkgo.GinkgoHelper()
	connection, err := amqp.DialConfig(h.URL, amqp.Config{Heartbeat: 10 * time.Second,
		Dial: amqp.DefaultDial(10 * time.Second)})
	if err != nil {
		return err
	}
	defer func() { _ = connection.CloseDeadline(time.Now().Add(5 * time.Second)) }()
	channel, err := connection.Channel()
	if err != nil {
		return err
	}
	return f(channel)
}

func (h *Host) must(f func(*amqp.Channel) error) {
	ginkgo.GinkgoHelper()
	gomega.Expect(h.Do(f)).To(gomega.Succeed())
}

// Publish puts raw messages straight into a queue (default exchange) and waits until the broker has them.
func (h *Host) Publish(queue string, messages ...amqp.Publishing) {
	ginkgo.GinkgoHelper()
	h.must(func(ch *amqp.Channel) error {
		if err := ch.Confirm(false); err != nil {
			return err
		}
		returns := ch.NotifyReturn(make(chan amqp.Return, len(messages)))
		confirms := make([]*amqp.DeferredConfirmation, 0, len(messages))
		for _, m := range messages {
			c, err := ch.PublishWithDeferredConfirm("", queue, true, false, m)
			if err != nil {
				return err
			}
			confirms = append(confirms, c)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		for _, c := range confirms {
			if acked, err := c.WaitContext(ctx); err != nil || !acked {
				return errors.Join(errors.New("not confirmed"), err)
			}
		}
		if len(returns) > 0 {
			return errors.New("queue " + queue + " does not exist")
		}
		return nil
	})
}

// Get takes one message out of a queue for good; ok is false when there is none, or no such queue.
func (h *Host) Get(queue string) (d amqp.Delivery, ok bool) {
	ginkgo.GinkgoHelper()
	err := h.Do(func(ch *amqp.Channel) error {
		var err error
		d, ok, err = ch.Get(queue, true)
		return err
	})
	var refusal *amqp.Error
	if errors.As(err, &refusal) && refusal.Code == amqp.NotFound {
		return d, false
	}
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	return d, ok
}

// Depth returns how many messages wait in a queue, without those that are with a consumer; -1 if there is no such
// queue.
func (h *Host) Depth(queue string) int {
	ginkgo.GinkgoHelper()
	depth := -1
	err := h.Do(func(ch *amqp.Channel) error {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		depth = q.Messages
		return err
	})
	var refusal *amqp.Error
	if errors.As(err, &refusal) && refusal.Code == amqp.NotFound {
		return -1
	}
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	return depth
}

// DeclareQueue declares a durable queue with the arguments given.
func (h *Host) DeclareQueue(name string, arguments amqp.Table) {
	ginkgo.GinkgoHelper()
	h.must(func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(name, true, false, false, false, arguments)
		return err
	})
}

// DeleteQueue deletes a queue with everything in it.
func (h *Host) DeleteQueue(name string) {
	ginkgo.GinkgoHelper()
	h.must(func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(name, false, false, false)
		return err
	})
}
