/** The states a page can be in beside having something to show, each with the next thing to do. */
import { Alert, Button, Center, Group, Skeleton, Stack, Text, Title } from "@mantine/core";
import { IconAlertTriangle } from "@tabler/icons-react";
import type { ReactNode } from "react";
import { asFailure } from "@/lib/failure";
import { Copy } from "./copy";

interface EmptyProps {
  title: string;
  children?: ReactNode;
  /** The next thing to do. */
  action?: ReactNode;
}

export const Empty = ({ title, children, action }: EmptyProps) => (
  <Center p="xl">
    <Stack align="center" gap="xs" maw={520} ta="center">
      <Title order={2} size="h4">
        {title}
      </Title>
      {children && <Text c="dimmed">{children}</Text>}
      {action}
    </Stack>
  </Center>
);

export const Loading = ({ rows = 4, label = "Loading" }: { rows?: number; label?: string }) => (
  <Stack role="status" aria-label={label} aria-busy gap="sm" p="sm">
    {Array.from({ length: rows }, (_, row) => (
      <Skeleton key={row} height={28} />
    ))}
  </Stack>
);

interface FailedProps {
  thrown: unknown;
  retry?: () => void;
  /** Another way out. */
  action?: ReactNode;
}

/** Stays until it is mended: the server's own sentence, its code, and a way to try again. */
export function Failed({ thrown, retry, action }: FailedProps) {
  const failure = asFailure(thrown);
  const details = [failure.code, failure.message, failure.requestId && `request ${failure.requestId}`];
  return (
    <Alert color="red" variant="outline" icon={<IconAlertTriangle aria-hidden />} title={failure.message} role="alert">
      <Group gap="xs">
        <Text size="sm" c="dimmed" ff="monospace">
          {failure.code}
        </Text>
        {retry && (
          <Button size="xs" variant="default" onClick={retry}>
            Try again
          </Button>
        )}
        {action}
        <Copy text={details.filter(Boolean).join("\n")} label="Copy details" />
      </Group>
    </Alert>
  );
}
