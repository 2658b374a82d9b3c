/** The formats that a profile can be given out in. */
export const FORMATS = [
  { format: "millm", label: "miLLM: everything", suffix: "json" },
  { format: "adr", label: "miLLM profile 1.0, flat", suffix: "adr.json" },
  { format: "mistudio", label: "miStudio", suffix: "mistudio.json" },
  { format: "neuronpedia", label: "Neuronpedia", suffix: "neuronpedia.json" },
  { format: "lm-eval", label: "lm-eval, CSV", suffix: "csv" },
  { format: "gguf", label: "GGUF control vector", suffix: "gguf" },
] as const;

export type Format = (typeof FORMATS)[number];
