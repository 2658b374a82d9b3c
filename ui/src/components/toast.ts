/** What is said in passing, in a polite live region: failures stay until they are dismissed. */
import { notifications } from "@mantine/notifications";
import type { ReactNode } from "react";
import { asFailure } from "@/lib/failure";

const closeButtonProps = { "aria-label": "Dismiss" };

/** @returns its id, to take it away again. */
export const said = (message: ReactNode): string => notifications.show({ message, closeButtonProps, autoClose: 6000 });

export function failed(thrown: unknown): void {
  const failure = asFailure(thrown);
  notifications.show({
    color: "red",
    title: failure.message,
    message: failure.code,
    autoClose: false,
    closeButtonProps,
  });
}
