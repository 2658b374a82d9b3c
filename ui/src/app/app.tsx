/** Everything that is around the pages: theme, query cache, toasts, routes. */
import { MantineProvider } from "@mantine/core";
import { Notifications } from "@mantine/notifications";
import { QueryClientProvider } from "@tanstack/react-query";
import { RouterProvider } from "@tanstack/react-router";
import { client } from "@/lib/queries";
import { router } from "./router";
import { nonce, theme } from "./theme";

export const App = () => (
  <MantineProvider theme={theme} defaultColorScheme="auto" getStyleNonce={nonce}>
    <QueryClientProvider client={client}>
      <Notifications position="bottom-left" role="status" aria-live="polite" />
      <RouterProvider router={router} />
    </QueryClientProvider>
  </MantineProvider>
);
