/** Writes src/lib/schema.d.ts from an OpenAPI document on stdin: `python -m tools.make_openapi | npm run types`. */
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import openapi, { astToString } from "openapi-typescript";

const document = readFileSync(0, "utf-8");
const digest = createHash("sha256").update(document).digest("hex");
const types = astToString(await openapi(JSON.parse(document), { defaultNonNullable: false }));
const head = `// Written by scripts/types.mjs from the server's OpenAPI document; do not edit.\n// sha256 ${digest}\n\n`;
writeFileSync(new URL("../src/lib/schema.d.ts", import.meta.url), head + types);
