import { describe, expect, it } from "vitest";
import { dataFolder, dataPaths } from "../../../engine/paths";

describe("dataFolder", () => {
  it("follows each platform's custom", () => {
    expect(dataFolder({ XDG_DATA_HOME: "/x" }, "linux")).toBe("/x/nosa");
    expect(dataFolder({ XDG_DATA_HOME: "relative" }, "linux")).toMatch(/\.local\/share\/nosa$/);
    expect(dataFolder({}, "darwin")).toMatch(/Library\/Application Support\/nosa$/);
    expect(dataFolder({ LOCALAPPDATA: "C:/l" }, "win32")).toContain("C:/l");
    expect(dataFolder({ NOSA_HOME: "/n", XDG_DATA_HOME: "/x" }, "linux")).toBe("/n");
  });
});

describe("dataPaths", () => {
  it("keeps the socket address short enough to bind, whatever the folder is called", () => {
    expect(dataPaths("/home/u/nosa", "linux").socket).toMatch(/^\/home\/u\/nosa\//);
    expect(Buffer.byteLength(dataPaths(`/${"long/".repeat(60)}`, "linux").socket)).toBeLessThan(104);
  });

  it("gives every folder a pipe of its own on Windows", () => {
    const [a, b] = ["C:/a", "C:/b"].map((folder) => dataPaths(folder, "win32").socket);
    expect(a).toMatch(/^\\\\\.\\pipe\\nosa-v\d+-/);
    expect(a).not.toBe(b);
  });
});
