// The report's page: shows the data that lies in it.

import { showReport } from "./report.js";

showReport(document.getElementById("app"), JSON.parse(document.getElementById("pm-data").textContent));
