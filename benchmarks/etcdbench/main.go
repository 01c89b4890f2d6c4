// Etcdbench loads an etcd cluster through etcd's own Go client and prints one line of JSON.
//
// Clients are closed loops: each waits for its answer before it asks again, like those of redis-benchmark.
// Keys are drawn uniformly; "fill" writes every key once, so that later reads find a value.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/clientv3"
)

// Report is what the Python side parses; times are in milliseconds.
type Report struct {
	Mode       string  `json:"mode"`
	Clients    int     `json:"clients"`
	Operations int     `json:"operations"` // successes only
	Errors     int     `json:"errors"`
	FirstError string  `json:"first_error"`
	Seconds    float64 `json:"seconds"`
	P50        float64 `json:"p50_ms"`
	P95        float64 `json:"p95_ms"`
	P99        float64 `json:"p99_ms"`
	Max        float64 `json:"max_ms"`
	Gap        float64 `json:"gap_ms"`        // longest time without a success of any client
	ClientGap  float64 `json:"client_gap_ms"` // longest time that one client went without a success
}

// Worker is one closed loop and what it saw.
type worker struct {
	client     *clientv3.Client
	random     *rand.Rand
	latencies  []float64
	successes  []time.Time
	errors     int
	firstError string
}

type options struct {
	endpoints []string
	mode      string
	clients   int
	conns     int
	duration  time.Duration
	timeout   time.Duration
	size      int
	keys      int
	pin       bool
}

func main() {
	var o options
	endpoints := flag.String("e", "", "endpoints, host:port separated by commas")
	flag.StringVar(&o.mode, "m", "put", "put, get (linearizable), sget (serializable) or fill")
	flag.IntVar(&o.clients, "c", 64, "closed loops")
	flag.IntVar(&o.conns, "conns", 8, "connections that the loops share")
	flag.DurationVar(&o.duration, "d", 4*time.Second, "how long to load; fill takes what it takes")
	flag.DurationVar(&o.timeout, "timeout", 5*time.Second, "deadline of one operation")
	flag.IntVar(&o.size, "s", 256, "bytes of a value")
	flag.IntVar(&o.keys, "k", 10000, "number of keys")
	flag.BoolVar(&o.pin, "pin", false, "tie each connection to one endpoint instead of balancing over all")
	flag.Parse()
	o.endpoints = strings.Split(*endpoints, ",")
	if o.conns > o.clients {
		o.conns = o.clients
	}
	report, err := run(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "etcdbench:", err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		os.Exit(1)
	}
}

func run(o options) (*Report, error) {
	clients, err := connect(o)
	if err != nil {
		return nil, err
	}
	workers := make([]*worker, o.clients)
	for i := range workers {
		workers[i] = &worker{client: clients[i%len(clients)], random: rand.New(rand.NewSource(int64(i + 1)))}
	}
	value := strings.Repeat("x", o.size)
	start := time.Now()
	var group sync.WaitGroup
	for i := range workers {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			if o.mode == "fill" {
				workers[i].fill(o, i, value)
			} else {
				workers[i].load(o, value, start.Add(o.duration))
			}
		}(i)
	}
	group.Wait()
	return summarize(o, workers, time.Since(start)), nil
}

// Connect opens the connections and uses each once, so that dialling is not measured.
func connect(o options) ([]*clientv3.Client, error) {
	clients := make([]*clientv3.Client, o.conns)
	for i := range clients {
		endpoints := o.endpoints
		if o.pin {
			endpoints = []string{o.endpoints[i%len(o.endpoints)]}
		}
		client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: o.timeout})
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(context.Background(), o.timeout)
		_, err = client.Get(ctx, "first")
		cancel()
		if err != nil {
			return nil, err
		}
		clients[i] = client
	}
	return clients, nil
}

func (w *worker) load(o options, value string, stop time.Time) {
	for time.Now().Before(stop) {
		key := keyName(w.random.Intn(o.keys))
		w.once(o.timeout, func(ctx context.Context) error {
			var err error
			switch o.mode {
			case "put":
				_, err = w.client.Put(ctx, key, value)
			case "get":
				_, err = w.client.Get(ctx, key)
			case "sget":
				_, err = w.client.Get(ctx, key, clientv3.WithSerializable())
			default:
				err = fmt.Errorf("unknown mode %q", o.mode)
			}
			return err
		})
	}
}

func (w *worker) fill(o options, first int, value string) {
	for i := first; i < o.keys; i += o.clients {
		key := keyName(i)
		w.once(o.timeout, func(ctx context.Context) error {
			_, err := w.client.Put(ctx, key, value)
			return err
		})
	}
}

func (w *worker) once(timeout time.Duration, operation func(context.Context) error) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	err := operation(ctx)
	cancel()
	now := time.Now()
	if err != nil {
		w.errors++
		if w.firstError == "" {
			w.firstError = err.Error()
		}
		// A refused operation returns at once; without a pause the loop would count thousands of them.
		time.Sleep(5 * time.Millisecond)
		return
	}
	w.latencies = append(w.latencies, milliseconds(now.Sub(start)))
	w.successes = append(w.successes, now)
}

func summarize(o options, workers []*worker, elapsed time.Duration) *Report {
	report := &Report{Mode: o.mode, Clients: o.clients, Seconds: elapsed.Seconds()}
	var latencies []float64
	var successes []time.Time
	for _, w := range workers {
		latencies = append(latencies, w.latencies...)
		successes = append(successes, w.successes...)
		report.Errors += w.errors
		if report.FirstError == "" {
			report.FirstError = w.firstError
		}
		if gap := longestGap(w.successes); gap > report.ClientGap {
			report.ClientGap = gap
		}
	}
	report.Operations = len(latencies)
	if len(latencies) == 0 {
		return report
	}
	sort.Float64s(latencies)
	at := func(share float64) float64 { return latencies[int(share*float64(len(latencies)-1))] }
	report.P50, report.P95, report.P99, report.Max = at(0.50), at(0.95), at(0.99), at(1)
	sort.Slice(successes, func(i, j int) bool { return successes[i].Before(successes[j]) })
	report.Gap = longestGap(successes)
	return report
}

func longestGap(times []time.Time) float64 {
	longest := time.Duration(0)
	for i := 1; i < len(times); i++ {
		if gap := times[i].Sub(times[i-1]); gap > longest {
			longest = gap
		}
	}
	return milliseconds(longest)
}

func keyName(i int) string {
	return fmt.Sprintf("key:%012d", i)
}

func milliseconds(d time.Duration) float64 {
	return d.Seconds() * 1e3
}
