// Times by the plant's clock, wherever the page is looked at.

import { day } from "./words.js";

export const dayOf = (iso) => day(new Date(`${iso}T12:00`));

/** The time of day, 14:00. */
export const hour = (iso, zone) => new Date(iso).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", timeZone: zone });

/** The day and the time of day. */
export const moment = (iso, zone) => `${dayOf(new Date(iso).toLocaleDateString("en-CA", { timeZone: zone }))} ${hour(iso, zone)}`;
