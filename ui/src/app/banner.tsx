/** What concerns every page: no connection, a key that is wanted, something given up, a damaged database. */
import { Alert, Button, Group, PasswordInput } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { asFailure } from "@/lib/failure";
import { rememberKey } from "@/lib/key";
import { useConnection } from "@/lib/live";
import { client, status } from "@/lib/queries";

export function Banner() {
  const connection = useConnection();
  const { data, error } = useQuery(status);
  if (error && asFailure(error).status === 401) return <AskForKey />;
  if (connection === "lost")
    return (
      <Alert color="orange" variant="outline" role="status" mb="md" title="The connection to the server is lost">
        What is shown may be out of date. It connects again by itself as soon as the server is back.
      </Alert>
    );
  const told = data?.degraded ?? data?.notice ?? (data?.status === "ready" ? undefined : data?.cause?.message);
  return told ? (
    <Alert color="orange" variant="outline" role="status" mb="md">
      {told}
    </Alert>
  ) : null;
}

function AskForKey() {
  const [key, setKey] = useState("");
  const use = () => {
    rememberKey(key.trim());
    void client.invalidateQueries();
  };
  return (
    <Alert color="orange" variant="outline" mb="md" title="This server wants an API key">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          use();
        }}
      >
        <Group align="end">
          <PasswordInput
            label="API key"
            description="Kept until this tab is closed."
            value={key}
            onChange={(event) => setKey(event.currentTarget.value)}
          />
          <Button type="submit">Use it</Button>
        </Group>
      </form>
    </Alert>
  );
}
