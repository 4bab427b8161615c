/*
 * Where the server of a command line listens. Called by `run` before it starts the command.
 */
#ifndef PM_CMD_SERVER_H
#define PM_CMD_SERVER_H

#include "cmd/http.h"

/* From --host, --port, --uds, --api-key, --ssl-keyfile, --ssl-certfile and --config of a vLLM
 * server's command line, vLLM's defaults where they are not given, and VLLM_API_KEY of the
 * environment. Options of vLLM are looked for in the whole command line, so that a wrapper before
 * it does no harm; a script that hides them needs `url`. An address that stands for every interface
 * becomes loopback. 0, or -PM_EINVALID with a sentence. */
PM_MUST_USE int pm_server_from_command(struct pm_server *ret_server, char *const *command,
                                       const char *env_api_key, struct pm_error *err);

/* From "http://HOST:PORT" (or "HOST:PORT", or "unix:PATH"); the key is left as it is. */
PM_MUST_USE int pm_server_from_url(struct pm_server *server, const char *url, struct pm_error *err);

#endif
