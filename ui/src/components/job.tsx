/** One download: how far it is, how fast, how long it takes yet, and how to end it or go on with it. */
import { Anchor, Button, Card, Group, Progress, Stack, Text } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { api, told, type Schemas } from "@/lib/api";
import { bytes, duration } from "@/lib/numbers";
import { failed } from "./toast";

type Job = Schemas["DownloadJob"];

const GOES_ON = ["queued", "resolving", "running", "waiting", "verifying", "converting"];
const ENDED_EARLY = ["failed", "cancelled", "interrupted"];

/** Those that somebody may still want to see: what is installed is in the library. */
export const openJobs = (jobs: readonly Job[], kind: Schemas["DownloadSpec"]["kind"]): Job[] =>
  jobs.filter((job) => job.asked.kind === kind && job.state !== "installed");

export function JobCard({ job }: { job: Job }) {
  const change = useMutation({
    mutationFn: (what: "cancel" | "resume") =>
      told(api.POST(`/api/jobs/{id}/${what}`, { params: { path: { id: job.id } } })),
    onError: failed,
  });
  const share = job.total > 0 ? (100 * job.done) / job.total : 0;
  return (
    <Card withBorder padding="sm" component="section" aria-label={`Download of ${job.name}`}>
      <Stack gap={6}>
        <Group justify="space-between" wrap="nowrap">
          <Text fw={600} style={{ overflowWrap: "anywhere" }}>
            {job.name}
          </Text>
          {GOES_ON.includes(job.state) && (
            <Button size="xs" variant="default" onClick={() => change.mutate("cancel")}>
              Cancel
            </Button>
          )}
          {ENDED_EARLY.includes(job.state) && (
            <Button size="xs" onClick={() => change.mutate("resume")}>
              Go on
            </Button>
          )}
        </Group>
        <Progress value={share} aria-label={`Progress of ${job.name}`} />
        <Text size="sm">{progress(job)}</Text>
        {job.problem && (
          <Text size="sm" role="status">
            {job.problem.message}{" "}
            {job.problem.link && (
              <Anchor href={job.problem.link} target="_blank" rel="noreferrer" size="sm">
                Open its page
              </Anchor>
            )}
          </Text>
        )}
      </Stack>
    </Card>
  );
}

function progress(job: Job): string {
  const parts = [
    job.state,
    job.total > 0 && `${bytes(job.done)} of ${bytes(job.total)}`,
    job.files_total > 0 && `file ${job.files_done} of ${job.files_total}`,
    job.speed && `${bytes(job.speed)}/s`,
    job.seconds_left && `${duration(job.seconds_left)} left`,
    job.retry_in && `tries again in ${duration(job.retry_in)}`,
  ];
  return parts.filter(Boolean).join(" · ");
}
