// A worker of graphile-worker, and what enqueues for it; the harness runs it as benches/peers/program.py says.
import { createInterface } from "node:readline";
import { Logger, makeWorkerUtils, run, runMigrations } from "graphile-worker";

const [, , act, connectionString, mode, count] = process.argv;

const tell = (word) => {
  const at = process.hrtime.bigint(); // CLOCK_MONOTONIC
  process.stdout.write(`${word} ${Number(at / 1000n) / 1e6}\n`);
};

const logger = new Logger(() => (level, message) => {
  if (level === "error") process.stderr.write(`${message}\n`);
});

async function feed() {
  const utils = await makeWorkerUtils({ connectionString, logger });
  for await (const line of createInterface({ input: process.stdin })) {
    for (let left = Number(line); left > 0; left -= 1000) {
      const some = Math.min(left, 1000);
      if (some === 1) await utils.addJob("unit", {});
      else await utils.addJobs(Array.from({ length: some }, () => ({ identifier: "unit", payload: {} })));
    }
    process.stdout.write("done\n");
  }
  await utils.release();
}

async function serve() {
  let called = 0;
  let release;
  const released = new Promise((resolve) => {
    release = resolve;
  });
  createInterface({ input: process.stdin }).on("line", (line) => {
    if (line === "release") release();
  });
  const unit = async () => {
    called += 1;
    if (mode === "count") {
      if (called === 1) tell("first");
      if (called === Number(count)) tell("last");
      return;
    }
    tell("started");
    if (mode === "hold") {
      await (called === 1 ? released : new Promise(() => {})); // only the first held call is ever released
      tell("released");
    }
  };
  const preset = {
    worker: {
      connectionString,
      maxPoolSize: 10,
      concurrentJobs: 24,
      localQueue: { size: 500 },
      completeJobBatchDelay: 0,
      failJobBatchDelay: 0,
      preparedStatements: true,
    },
  };
  await run({ preset, logger, taskList: { unit }, noHandleSignals: true });
  tell("ready");
}

if (act === "install") await runMigrations({ connectionString, logger });
else if (act === "feed") await feed();
else await serve();
