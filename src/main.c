/* SPDX-License-Identifier: Apache-2.0 */
/* vse: the front end. Finds the subcommand and runs it. */
#include <signal.h>

#include "base/log.h"
#include "base/proc.h"
#include "commands/command.h"

int main(int argc, char **argv)
{
	proc_fill_stdio();
	log_setup("vse", LOG_WARN, false);
	/* A reader that left is seen as EPIPE, where it can be dealt with. */
	signal(SIGPIPE, SIG_IGN);
	return command_main(argc, argv);
}
