/** What is checked beside types: hooks' rules, and that rooms do not know each other. */
import js from "@eslint/js";
import hooks from "eslint-plugin-react-hooks";
import ts from "typescript-eslint";

const ROOMS = ["playground", "steering", "models", "saes", "monitor", "profiles", "features", "server", "settings"];

const forbidding = (room) => ({
  files: [`src/${room}/**`],
  rules: {
    "no-restricted-imports": [
      "error",
      {
        patterns: [
          {
            group: ["@/app/*", ...ROOMS.filter((other) => other !== room).map((other) => `@/${other}/*`)],
            message: "A page knows components/ and lib/; app/ puts pages together.",
          },
        ],
      },
    ],
  },
});

export default ts.config(
  { ignores: ["node_modules", "src/lib/schema.d.ts"] },
  js.configs.recommended,
  ts.configs.strict,
  hooks.configs.flat.recommended,
  { rules: { "@typescript-eslint/no-non-null-assertion": "off" } }, // an index that was just checked still may be undefined to tsc
  {
    files: ["scripts/**", "e2e/**"],
    languageOptions: {
      globals: {
        ...Object.fromEntries(
          ["process", "console", "URL", "URLSearchParams", "fetch", "setTimeout"].map((name) => [name, "readonly"]),
        ),
        ...Object.fromEntries(
          ["document", "window", "performance", "MutationObserver", "axe"].map((name) => [name, "readonly"]),
        ),
      },
    },
  },
  ...ROOMS.map(forbidding),
  {
    files: ["src/components/**", "src/lib/**"],
    rules: {
      "no-restricted-imports": [
        "error",
        {
          patterns: [
            { group: ["@/app/*", ...ROOMS.map((room) => `@/${room}/*`)], message: "Shared code knows no page." },
          ],
        },
      ],
    },
  },
);
