/** Colours with enough contrast in light and dark (WCAG 2.2 AA): Mantine's light buttons alone have not. */
import { createTheme } from "@mantine/core";

export const theme = createTheme({
  primaryColor: "indigo",
  primaryShade: { light: 7, dark: 8 },
  autoContrast: true,
  fontFamily: "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
  respectReducedMotion: true,
  cursorType: "pointer",
});

/** The page's Content-Security-Policy allows only styles that carry this. */
export const nonce = (): string => document.querySelector('meta[name="csp-nonce"]')?.getAttribute("content") ?? "";
