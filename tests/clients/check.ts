import { deepStrictEqual } from "node:assert";

export const API = process.env.API ?? "";
export const TOKEN = process.env.TOKEN ?? "";

export const equal: (found: unknown, expected: unknown) => void = deepStrictEqual;

export function step(name: string): void {
    console.log(name);
}
