// node transformers_js.mjs MODEL PRECISION TEXTS.json ANSWER.json: our model as transformers.js' documentation uses one.
import { readFileSync, writeFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { env, pipeline } from "@huggingface/transformers";

const [model, precision, textsFile, answerFile] = process.argv.slice(2);
env.allowRemoteModels = false;
env.allowLocalModels = true;
env.localModelPath = dirname(model);
const texts = JSON.parse(readFileSync(textsFile, "utf8"));
// transformers.js' names: q8 is onnx/model_quantized.onnx.
const extractor = await pipeline("feature-extraction", basename(model), { dtype: { fp32: "fp32", int8: "q8" }[precision] });
const vectors = [];
for (const text of texts) {
  const output = await extractor(text, { pooling: "mean", normalize: true });
  vectors.push(output.tolist()[0]);
}
writeFileSync(answerFile, JSON.stringify({ version: env.version, vectors }));
