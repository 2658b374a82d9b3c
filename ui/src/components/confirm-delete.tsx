/** Asking before files are gone for good: what, and how much. */
import { Button, Group, Modal, Stack, Text } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";

interface Props {
  name: string;
  /** What goes, in words. */
  what: string;
  remove: () => void;
  isDisabled?: boolean;
}

export function ConfirmDelete({ name, what, remove, isDisabled }: Props) {
  const [isOpen, { open, close }] = useDisclosure(false);
  return (
    <>
      <Button size="xs" variant="default" onClick={open} disabled={isDisabled} aria-label={`Delete ${name}`}>
        Delete
      </Button>
      <Modal opened={isOpen} onClose={close} title={`Delete ${name}?`}>
        <Stack>
          <Text>{what} This cannot be taken back.</Text>
          <Group>
            <Button
              color="red.8"
              onClick={() => {
                remove();
                close();
              }}
            >
              Delete
            </Button>
            <Button variant="default" onClick={close}>
              Keep
            </Button>
          </Group>
        </Stack>
      </Modal>
    </>
  );
}
