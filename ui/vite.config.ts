/** How the page is built: into the Python package, which serves it under /ui/. */
import { fileURLToPath } from "node:url";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

const SERVER = process.env.MILLM_URL ?? "http://127.0.0.1:8000";

export default defineConfig({
  base: "/ui/",
  plugins: [react()],
  resolve: { alias: { "@": fileURLToPath(new URL("src", import.meta.url)) } },
  build: { outDir: "../src/millm/web", emptyOutDir: true, sourcemap: false, assetsInlineLimit: 0 },
  server: {
    proxy: Object.fromEntries(["/api", "/v1", "/openapi.json"].map((path) => [path, { target: SERVER, ws: true }])),
  },
  test: { environment: "jsdom", setupFiles: ["src/lib/test-setup.ts"] },
});
