/** Colours with enough contrast in light and dark (WCAG 2.2 AA): Mantine's light buttons alone have not. */
import { createTheme, Drawer, Menu, Modal } from "@mantine/core";

export const theme = createTheme({
  primaryColor: "indigo",
  primaryShade: { light: 7, dark: 8 },
  autoContrast: true,
  fontFamily: "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
  respectReducedMotion: true,
  cursorType: "pointer",
  components: {
    Drawer: Drawer.extend({ defaultProps: { closeButtonProps: { "aria-label": "Close" } } }),
    Menu: Menu.extend({ defaultProps: { withInitialFocusPlaceholder: false } }), // a menu has items alone
    Modal: Modal.extend({ defaultProps: { closeButtonProps: { "aria-label": "Close" } } }),
  },
});

/** The page's Content-Security-Policy allows only styles that carry this. */
export const nonce = (): string => document.querySelector('meta[name="csp-nonce"]')?.getAttribute("content") ?? "";

/** The library that keeps a page from scrolling below a drawer asks for it by this name. */
export const shareNonce = (): void => void Object.assign(window, { __webpack_nonce__: nonce() });
