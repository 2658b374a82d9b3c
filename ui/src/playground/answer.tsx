/** One answer of one column: its text, what steered it, how quick it was, and a hint where it goes round in circles. */
import { Badge, Group, Loader, Mark, Stack, Text } from "@mantine/core";
import { Failed } from "@/components/states";
import { duration, percent, short } from "@/lib/numbers";
import type { Answer } from "./asking";
import type { Piece } from "./diff";
import { isIncoherent } from "./incoherent";

interface Props {
  answer: Answer;
  isSteered: boolean;
  /** The text in pieces, where differences are marked. */
  pieces?: readonly Piece[];
}

export function AnswerText({ answer, isSteered, pieces }: Props) {
  return (
    <Stack gap={4} miw={0}>
      {answer.state === "waiting" && <Loader size="xs" type="dots" aria-label="Waiting for the answer" />}
      <Text component="div" style={{ whiteSpace: "pre-wrap", overflowWrap: "anywhere" }} data-answer>
        {pieces ? pieces.map(piece) : answer.text}
      </Text>
      {answer.state === "failed" && <Failed thrown={answer.failure} />}
      <Group gap="xs">
        {answer.state === "stopped" && <Badge variant="default">stopped</Badge>}
        {isSteered && answer.state !== "writing" && isIncoherent(answer.text) && (
          <Badge variant="default" tt="none">
            It repeats itself: try a smaller strength
          </Badge>
        )}
        <Text size="xs">{told(answer, isSteered)}</Text>
      </Group>
    </Stack>
  );
}

const piece = ({ text, isShared }: Piece, place: number) => (isShared ? text : <Mark key={place}>{text}</Mark>);

function told({ receipt, firstText, tokensPerSecond }: Answer, isSteered: boolean): string {
  const share = receipt?.delta_norm_ratio;
  return [
    isSteered && receipt && (receipt.profile ?? receipt.steering ?? "nothing is steered"),
    isSteered && receipt?.steering && `${receipt.tokens_steered} tokens steered`,
    isSteered && typeof share === "number" && `‖delta‖ ${percent(share)} of ‖h‖`,
    receipt?.degraded,
    firstText !== undefined && `first text after ${duration(firstText)}`,
    tokensPerSecond !== undefined && `${short(tokensPerSecond)} tokens/s`,
  ]
    .filter(Boolean)
    .join(" · ");
}
