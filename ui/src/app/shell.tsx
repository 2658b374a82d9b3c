/** What is around every page: the header, the menu, and word of a lost connection. */
import { AppShell, Burger, Button, Drawer, Group, NavLink } from "@mantine/core";
import { useDisclosure, useHotkeys, useMediaQuery } from "@mantine/hooks";
import { Link, Outlet, useLocation } from "@tanstack/react-router";
import { Rack } from "@/steering/rack";
import { Banner } from "./banner";
import { Header, WhatBelow } from "./header";
import { Palette } from "./palette";
import { PLACES } from "./places";

const WITH_KNOBS = ["/", "/monitor"];

export function Shell() {
  const [isOpen, { toggle, close }] = useDisclosure(false);
  const [showsRack, rack] = useDisclosure(true);
  const [drawsRack, drawer] = useDisclosure(false);
  const isWide = useMediaQuery("(min-width: 75em)");
  const isRackHere = WITH_KNOBS.includes(useLocation({ select: ({ pathname }) => pathname }));
  const turn = isWide ? rack.toggle : drawer.toggle;
  useHotkeys([["k", () => isRackHere && turn()]]);
  return (
    <AppShell
      header={{ height: 56 }}
      navbar={{ width: 190, breakpoint: "sm", collapsed: { mobile: !isOpen } }}
      aside={{ width: 350, breakpoint: "lg", collapsed: { desktop: !isRackHere || !showsRack, mobile: true } }}
      padding="md"
    >
      <Palette />
      <AppShell.Header>
        <a href="#main" className="skip-link">
          To the page
        </a>
        <Group h="100%" px="sm" gap="sm" wrap="nowrap">
          <Burger opened={isOpen} onClick={toggle} hiddenFrom="sm" size="sm" aria-label="Menu" />
          <Header />
          {isRackHere && (
            <Button size="xs" variant="default" onClick={turn} aria-expanded={isWide ? showsRack : drawsRack} title="k">
              Knobs
            </Button>
          )}
        </Group>
      </AppShell.Header>
      <AppShell.Navbar p="xs" aria-label="Pages">
        <Menu onChosen={close} />
      </AppShell.Navbar>
      <AppShell.Main id="main" tabIndex={-1}>
        <WhatBelow />
        <Banner />
        <Outlet />
      </AppShell.Main>
      {isRackHere && isWide && showsRack && (
        <AppShell.Aside p="sm" style={{ overflowY: "auto" }} aria-label="Knobs">
          <Rack />
        </AppShell.Aside>
      )}
      <Drawer
        opened={isRackHere && !isWide && drawsRack}
        onClose={drawer.close}
        position="bottom"
        size="80%"
        title="Steering"
      >
        <Rack />
      </Drawer>
    </AppShell>
  );
}

function Menu({ onChosen }: { onChosen: () => void }) {
  const here = useLocation({ select: ({ pathname }) => pathname });
  return PLACES.map(({ to, label, icon: Icon }) => (
    <NavLink
      key={to}
      component={Link}
      to={to}
      label={label}
      active={here === to}
      aria-current={here === to ? "page" : undefined}
      leftSection={<Icon size={18} aria-hidden />}
      onClick={onChosen}
    />
  ));
}
