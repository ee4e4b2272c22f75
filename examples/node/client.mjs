// Sends pictures to a splitpoint worker and prints what the model makes of them.
//
//     npm install
//     node client.mjs 127.0.0.1:7070 photo.jpg [another.jpg ...]
//
// Written after docs/wire.md. The pictures are JPEGs of exactly the model's size; the model is one
// of pictures whose answers are the outputs themselves (no detector). SPLITPOINT_TOKEN is sent as a
// token where it is set. The connection is not encrypted: for a worker on the same machine.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { crc32 } from "node:zlib";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const PROTOCOL = 1;
const DTYPES = ["", "float32", "float16", "uint8", "int8", "int32", "int64", "bool", "float64"];
const BUDGET_MS = 5000;
const PROTO = fileURLToPath(new URL("../../proto/splitpoint.proto", import.meta.url));
const definition = loader.loadSync(PROTO, { longs: Number, enums: String, defaults: true, oneofs: true });
const { splitpoint } = grpc.loadPackageDefinition(definition);

function metadata() {
  const found = new grpc.Metadata();
  if (process.env.SPLITPOINT_TOKEN) found.set("authorization", `Bearer ${process.env.SPLITPOINT_TOKEN}`);
  return found;
}

function describe(client) {
  return new Promise((resolve, reject) => {
    const deadline = Date.now() + 10_000;
    client.Describe({ protocol: PROTOCOL }, metadata(), { deadline }, (error, reply) =>
      error ? reject(error) : resolve(reply),
    );
  });
}

// A file of a bundle, which is what its SHA-256 says or an error.
async function fetchFile(client, digest, sha256) {
  const chunks = [];
  for await (const chunk of client.Fetch({ digest, sha256 }, metadata())) chunks.push(chunk.data);
  const file = Buffer.concat(chunks);
  if (createHash("sha256").update(file).digest("hex") !== sha256) {
    throw new Error(`the worker sent another file than ${sha256}`);
  }
  return file;
}

// The bytes that the checksum covers: numbers are little-endian.
function uint(value, bytes) {
  const buffer = Buffer.alloc(bytes);
  if (bytes === 8) buffer.writeBigUInt64LE(BigInt(value));
  else buffer.writeUInt32LE(value);
  return buffer;
}

function tensorBytes(tensor) {
  const numbers = [tensor.dtype, tensor.shape.length, ...tensor.shape];
  return [...numbers.map((number) => uint(number, 4)), tensor.payload];
}

function frameChecksum(frame) {
  const head = [uint(frame.id, 8), uint(frame.boundary, 4), uint(frame.budgetMs, 4), Buffer.from(frame.codec)];
  return crc32(Buffer.concat([...head, ...frame.tensors.flatMap(tensorBytes)]));
}

function replyChecksum(reply, status) {
  const head = [uint(reply.id, 8), uint(reply.messageIndex, 8), uint(status, 4)];
  return crc32(Buffer.concat([...head, ...reply.outputs.flatMap(tensorBytes)]));
}

function frameOf(id, jpeg, input) {
  const shape = [...input.shape];
  const frame = {
    id,
    boundary: 0,
    codec: "jpeg",
    // One sample: its length, and the file.
    tensors: [{ dtype: DTYPES.indexOf(input.dtype), shape, payload: Buffer.concat([uint(jpeg.length, 4), jpeg]) }],
    budgetMs: BUDGET_MS,
  };
  return { ...frame, crc32: frameChecksum(frame) };
}

// What a classifier says: the first classes by softmax.
function best(logits, labels, count = 3) {
  const most = Math.max(...logits);
  const scores = Array.from(logits, (value) => Math.exp(value - most));
  const sum = scores.reduce((a, b) => a + b, 0);
  const order = scores.map((_, index) => index).sort((a, b) => scores[b] - scores[a]);
  return order
    .slice(0, count)
    .map((index) => `${labels[index] ?? index} ${(scores[index] / sum).toFixed(3)}`)
    .join(", ");
}

function inWords(reply, manifest, labels) {
  const specs = manifest.boundaries.at(-1).tensors;
  return reply.outputs.map((output, at) => {
    const { name, dtype } = specs[at];
    if (DTYPES[output.dtype] !== dtype) throw new Error(`${name} came as ${DTYPES[output.dtype]}`);
    if (dtype !== "float32") return `${name}: ${dtype} [${output.shape}]`;
    const bytes = Uint8Array.from(output.payload).buffer;
    const values = new Float32Array(bytes);
    return manifest.task.kind === "classify" ? best(values, labels) : `${name}: float32 [${output.shape}]`;
  }).join("; ");
}

// Every picture's answer, by the order of the pictures; frames are unanswered up to the credits.
function infer(client, model, manifest, jpegs) {
  const OK = definition["splitpoint.v1.Status"].type.value.find((each) => each.name === "OK").number;
  const answers = new Array(jpegs.length);
  const input = manifest.boundaries[0].tensors[0];
  return new Promise((resolve, reject) => {
    const stream = client.Infer(metadata());
    let sent = 0;
    let left = jpegs.length;
    const sendNext = () => {
      if (sent === jpegs.length) return;
      sent += 1;
      stream.write({ frame: frameOf(sent, jpegs[sent - 1], input) });
    };
    stream.on("error", reject);
    stream.on("data", (message) => {
      if (message.welcome) {
        for (let credit = 0; credit < message.welcome.credits; credit += 1) sendNext();
      } else if (message.reply) {
        const reply = message.reply;
        if (reply.id < 1 || reply.id > sent || answers[reply.id - 1]) {
          reject(new Error(`a reply to frame ${reply.id}, which nobody waits for: ${reply.reason}`));
          return;
        }
        if (reply.status === "OK" && replyChecksum(reply, OK) !== reply.crc32) {
          reply.status = "CORRUPT";
        }
        answers[reply.id - 1] = reply;
        left -= 1;
        if (left === 0) {
          stream.end();
          resolve(answers);
        } else sendNext();
      }
    });
    stream.on("end", () => reject(new Error("the worker ended the stream")));
    stream.write({ hello: { protocol: PROTOCOL, digest: model.digest, client: "node example" } });
  });
}

async function main([server, ...paths]) {
  if (!server || !paths.length) throw new Error("usage: node client.mjs HOST:PORT PICTURE.jpg ...");
  const client = new splitpoint.v1.Split(server, grpc.credentials.createInsecure());
  try {
    const [model] = (await describe(client)).models;
    const manifest = JSON.parse(await fetchFile(client, model.digest, model.digest));
    if (manifest.task.head) throw new Error(`${model.name} answers with ${manifest.task.kind}, which this example does not read`);
    const file = manifest.files[manifest.labels_file];
    const lines = file ? (await fetchFile(client, model.digest, file.sha256)).toString() : "";
    const labels = lines.trimEnd().split("\n");
    const answers = await infer(client, model, manifest, paths.map((path) => readFileSync(path)));
    answers.forEach((reply, at) => {
      const words = reply.status === "OK" ? inWords(reply, manifest, labels) : `${reply.status}: ${reply.reason}`;
      console.log(`${basename(paths[at])}  ${words}`);
    });
    return answers.every((reply) => reply.status === "OK") ? 0 : 1;
  } finally {
    client.close();
  }
}

main(process.argv.slice(2)).then(
  (status) => { process.exitCode = status; },
  (error) => { console.error(error.message); process.exitCode = 1; },
);
