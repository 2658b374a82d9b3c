/** SAEs: what is attached, what is in the library, and what there is for the model. */
import { Stack, Title } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { JobCard, openJobs } from "@/components/job";
import { Page } from "@/components/page";
import { Empty, Failed, Loading } from "@/components/states";
import { jobs, saes, status } from "@/lib/queries";
import { AttachedCard } from "./attached";
import { ById } from "./by-id";
import { SaeCard } from "./entry";
import { Registry } from "./registry";

export function SaesPage() {
  const library = useQuery(saes);
  const server = useQuery(status).data;
  const downloads = openJobs(useQuery(jobs).data ?? [], "sae");
  const others = library.data?.filter((sae) => !sae.is_attached) ?? [];
  return (
    <Page title="SAEs">
      <Stack gap="sm" component="section" aria-labelledby="attached">
        <Title order={2} size="h4" id="attached">
          Attached
        </Title>
        {server?.saes.length === 0 && (
          <Empty title="No SAE is attached">Attach one of the library, or fetch one below.</Empty>
        )}
        {server?.saes.map((sae) => (
          <AttachedCard key={sae.sae} sae={sae} />
        ))}
      </Stack>
      <Stack gap="sm" component="section" aria-labelledby="library">
        <Title order={2} size="h4" id="library">
          In the library
        </Title>
        {library.error && <Failed thrown={library.error} retry={() => void library.refetch()} />}
        {!library.data && !library.error && <Loading />}
        {library.data && others.length === 0 && <Empty title="No other SAE is here" />}
        {others.map((sae) => (
          <SaeCard key={sae.id} sae={sae} model={server?.model?.facts ?? null} />
        ))}
      </Stack>
      {downloads.map((job) => (
        <JobCard key={job.id} job={job} />
      ))}
      <Registry loaded={server?.model?.name ?? null} />
      <ById />
    </Page>
  );
}
