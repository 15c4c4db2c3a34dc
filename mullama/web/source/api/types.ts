/** The responses of the operator API, from its OpenAPI document. */

import type { paths } from "./openapi.d.ts";

type Json<Operation> = Operation extends { responses: { "2XX": { content: { "application/json": infer Body } } } }
  ? Body
  : never;

export type Status = Json<paths["/api/v1/status"]["get"]>;
export type Model = Status["models"][number];
export type Condition = Status["conditions"][number];
export type Stack = Json<paths["/api/v1/stack"]["get"]>;
export type Revision = Json<paths["/api/v1/history"]["get"]>["generations"][number];
export type Plan = Json<paths["/api/v1/plan"]["post"]>;
export type Comparison = Json<paths["/api/v1/history/diff"]["get"]>;
export type DeviceMemory = Plan["memory"][number];
export type Step = Plan["steps"][number];
export type ManifestText = Json<paths["/api/v1/manifest"]["get"]>;
export type TextPlan = Json<paths["/api/v1/manifest/plan"]["post"]>;
export type Mistake = TextPlan["problems"][number];
export type Capture = Json<paths["/api/v1/requests/{id}"]["get"]>;
export type CaptureRow = Json<paths["/api/v1/requests"]["get"]>["requests"][number];
export type MetricsHistory = Json<paths["/api/v1/metrics/history"]["get"]>;
export type MetricsColumns = MetricsHistory["total"];
export type KeyReport = Json<paths["/api/v1/keys"]["get"]>;
export type HubResult = Json<paths["/api/v1/hub/search"]["get"]>["results"][number];
export type HubRepository = Json<paths["/api/v1/hub/repository"]["get"]>;
export type FleetView = Json<paths["/api/v1/fleet"]["get"]>;
export type FleetHost = FleetView["hosts"][number];
export type FleetModel = FleetView["models"][number];
export type Rollout = NonNullable<FleetView["rollout"]>;
export type UsageReport = Json<paths["/api/v1/usage"]["get"]>;
export type UsageRow = UsageReport["rows"][number];

/** One event of the server. */
export interface ServerEvent {
  id: number;
  when: number;
  kind: string;
  subject: string;
  message: string;
  /** The models that it is about. */
  models?: string[];
  /** The revision in force when it happened, 0 before the first. */
  generation?: number;
}

/** One line of the answer to an apply or an undo. */
export interface ApplyLine {
  event: "plan" | "phase" | "fetch" | "waiting" | "warning" | "step" | "result" | "error";
  phase?: string;
  model?: string;
  file?: string;
  state?: string;
  message?: string;
  hint?: string;
  outcome?: string;
  problems?: string[];
  done?: number;
  total?: number | null;
  error?: { kind: string; message: string; hint?: string };
}

export type ModelDocument = Json<paths["/api/v1/models/{name}"]["get"]>;
export type ModelValue = ModelDocument["values"][number];
export type ModelFile = ModelDocument["files"][number];
export type ModelContext = ModelDocument["contexts"][number];
export type WorkerLog = Json<paths["/api/v1/logs/worker/{name}"]["get"]>;
export type LogAnswer = Json<paths["/api/v1/logs"]["get"]>;
export type LogLine = LogAnswer["lines"][number];
