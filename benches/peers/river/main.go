// A worker of River, and what enqueues for it; the harness runs it as benches/peers/program.py says.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

const (
	maxWorkers    = 2000
	fetchCooldown = 2 * time.Millisecond
	connections   = 10
)

type unitArgs struct{}

func (unitArgs) Kind() string { return "unit" }

type worker struct {
	river.WorkerDefaults[unitArgs]
	mode     string
	count    int64
	called   atomic.Int64
	released chan struct{}
}

var telling sync.Mutex

// tell writes a word and CLOCK_MONOTONIC, which all processes of a machine share.
func tell(word string) {
	var at syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, 1, uintptr(unsafe.Pointer(&at)), 0)
	telling.Lock()
	defer telling.Unlock()
	fmt.Printf("%s %d.%06d\n", word, at.Sec, at.Nsec/1000)
}

func (w *worker) Work(ctx context.Context, job *river.Job[unitArgs]) error {
	number := w.called.Add(1)
	if w.mode == "count" {
		if number == 1 {
			tell("first")
		}
		if number == w.count {
			tell("last")
		}
		return nil
	}
	tell("started")
	if w.mode == "hold" {
		<-w.released
		if number > 1 {
			select {} // only the first held call is ever released
		}
		tell("released")
	}
	return nil
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func install(ctx context.Context, pool *pgxpool.Pool) {
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	fail(err)
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	fail(err)
}

func feed(ctx context.Context, pool *pgxpool.Pool) {
	client, err := river.NewClient[pgx.Tx](riverpgxv5.New(pool), &river.Config{})
	fail(err)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		count, err := strconv.Atoi(strings.TrimSpace(lines.Text()))
		fail(err)
		for count > 0 {
			some := make([]river.InsertManyParams, min(count, 1000))
			for index := range some {
				some[index] = river.InsertManyParams{Args: unitArgs{}}
			}
			if len(some) == 1 {
				_, err = client.Insert(ctx, unitArgs{}, nil)
			} else {
				_, err = client.InsertManyFast(ctx, some)
			}
			fail(err)
			count -= len(some)
		}
		fmt.Println("done")
	}
}

func serve(ctx context.Context, pool *pgxpool.Pool, mode, count string, short bool) {
	units, err := strconv.ParseInt(count, 10, 64)
	fail(err)
	one := &worker{mode: mode, count: units, released: make(chan struct{})}
	workers := river.NewWorkers()
	river.AddWorker(workers, one)
	config := &river.Config{
		Queues:        map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: maxWorkers}},
		Workers:       workers,
		FetchCooldown: fetchCooldown,
		Logger:        slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	}
	if short {
		config.JobTimeout = -1
		config.RescueStuckJobsAfter = 2 * time.Second
	}
	client, err := river.NewClient[pgx.Tx](riverpgxv5.New(pool), config)
	fail(err)
	fail(client.Start(ctx))
	tell("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if lines.Text() == "release" {
			close(one.released)
		}
	}
	select {}
}

func main() {
	ctx := context.Background()
	config, err := pgxpool.ParseConfig(os.Args[2])
	fail(err)
	config.MaxConns = connections
	pool, err := pgxpool.NewWithConfig(ctx, config)
	fail(err)
	switch os.Args[1] {
	case "install":
		install(ctx, pool)
	case "feed":
		feed(ctx, pool)
	case "serve":
		serve(ctx, pool, os.Args[3], os.Args[4], os.Args[5] == "1")
	}
}
