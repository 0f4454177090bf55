/* The worker that prunes, so that a slider stays fluid on a million links. */

import { pruningService } from "./pruning-service.js";

const receive = pruningService((reply, buffers) => self.postMessage(reply, buffers));
self.addEventListener("message", ({ data }) => receive(data));
