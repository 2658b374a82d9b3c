/** What is said in passing, in a polite live region: failures stay until they are dismissed. */
import { notifications } from "@mantine/notifications";
import { asFailure } from "@/lib/failure";

export const said = (message: string): void => void notifications.show({ message, autoClose: 4000 });

export function failed(thrown: unknown): void {
  const failure = asFailure(thrown);
  notifications.show({ color: "red", title: failure.message, message: failure.code, autoClose: false });
}
