/** The places of the menu: pages that are there. */
import { IconAdjustments } from "@tabler/icons-react";

export const PLACES = [{ to: "/", label: "Playground", icon: IconAdjustments }] as const;
