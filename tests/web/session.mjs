// Loads and runs models in onnxruntime-web (WebAssembly): node session.mjs PACKAGE REQUEST ANSWER, both of them JSON.
// A request is a list of {model, feeds: {name: {type, dims, data (base64)}}}; a model without feeds is only loaded.
// Its answer is {error}, or {outputs: {name: {type, dims, data}}}.
import fs from "node:fs";

const [, , name, request, answer] = process.argv;
const ort = await import(`${name}/wasm`);
ort.env.wasm.numThreads = 1; // node has no more
ort.env.logLevel = "fatal";

const fromBytes = ({ type, dims, data }) => {
  const bytes = Uint8Array.from(Buffer.from(data, "base64"));
  const empty = new ort.Tensor(type, [], [0]).data;
  return new ort.Tensor(type, new empty.constructor(bytes.buffer), dims);
};

const toBytes = ({ type, dims, data }) => ({
  type,
  dims,
  data: Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64"),
});

const entries = (given, convert) => Object.fromEntries(Object.entries(given).map(([key, value]) => [key, convert(value)]));

async function answered({ model, feeds, plain }) {
  try {
    const options = { executionProviders: ["wasm"], graphOptimizationLevel: plain ? "disabled" : "all" };
    const session = await ort.InferenceSession.create(new Uint8Array(fs.readFileSync(model)), options);
    const outputs = feeds ? entries(await session.run(entries(feeds, fromBytes)), toBytes) : {};
    await session.release();
    return { outputs };
  } catch (error) {
    return { error: String(error.message ?? error) };
  }
}

const answers = [];
for (const one of JSON.parse(fs.readFileSync(request, "utf-8"))) answers.push(await answered(one));
fs.writeFileSync(answer, JSON.stringify({ version: ort.env.versions.web, answers }));
