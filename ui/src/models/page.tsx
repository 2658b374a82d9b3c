/** Models: what is in the library, what is loaded, and how to get another. */
import { Alert, Button, Group, Stack, Text } from "@mantine/core";
import { useMutation, useQuery } from "@tanstack/react-query";
import { JobCard, openJobs } from "@/components/job";
import { Page } from "@/components/page";
import { Empty, Failed, Loading } from "@/components/states";
import { failed } from "@/components/toast";
import { api, told, type Schemas } from "@/lib/api";
import { bytes } from "@/lib/numbers";
import { hardware, jobs, models, status } from "@/lib/queries";
import { ModelCard } from "./entry";
import { GetModel } from "./get";

export function ModelsPage() {
  const library = useQuery(models);
  const server = useQuery(status).data;
  const downloads = openJobs(useQuery(jobs).data ?? [], "model");
  const disk = useQuery(hardware).data?.cache;
  const used = library.data?.reduce((sum, model) => sum + model.size - model.shared, 0) ?? 0;
  return (
    <Page title="Models">
      {server?.changing && <UnderWay changing={server.changing} />}
      {server?.cause && server.status !== "ready" && (
        <Alert variant="outline" color="red" role="alert" title={server.cause.message}>
          {server.cause.code}
        </Alert>
      )}
      {library.error ? (
        <Failed thrown={library.error} retry={() => void library.refetch()} />
      ) : library.data ? (
        <Stack gap="sm">
          {library.data.length === 0 && <Empty title="The library is empty">Get a model below.</Empty>}
          {library.data.map((model) => (
            <ModelCard key={model.id} model={model} isBusy={Boolean(server?.changing)} />
          ))}
          <Text size="sm">
            {bytes(used)} on disk{disk && `, ${bytes(disk.free)} free`}
          </Text>
        </Stack>
      ) : (
        <Loading />
      )}
      {downloads.map((job) => (
        <JobCard key={job.id} job={job} />
      ))}
      <GetModel />
    </Page>
  );
}

function UnderWay({ changing }: { changing: Schemas["ChangeInProgress"] }) {
  const cancel = useMutation({ mutationFn: () => told(api.POST("/api/models/cancel")), onError: failed });
  const share = changing.total > 0 ? ` ${Math.round((100 * changing.done) / changing.total)} %` : "";
  return (
    <Alert variant="outline" role="status" title={`${changing.what}: ${changing.name}`}>
      <Group>
        <Text size="sm">
          {changing.stage || "begins"}
          {share}
        </Text>
        {changing.what === "load" && (
          <Button size="xs" variant="default" onClick={() => cancel.mutate()}>
            Cancel
          </Button>
        )}
      </Group>
    </Alert>
  );
}
