/* SPDX-License-Identifier: Apache-2.0 */
/* Does MPI work between all VMs? Every rank says where it runs; then all exchange numbers with all, and each looks
 * whether it got what the others were to send: exit code 1 where not. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define NUMBERS 4096 /* for each rank */
#define POLL_US 5000

/* MPI waits with a busy CPU. Where VMs share processors that is taken from those who are waited for: sleep instead. */
static void wait_for_all(void)
{
	MPI_Request all;
	int here = 0;
	MPI_Ibarrier(MPI_COMM_WORLD, &all);
	while (MPI_Test(&all, &here, MPI_STATUS_IGNORE), !here)
		usleep(POLL_US);
}

static int number(int from, int to, int i)
{
	return (from * 1009 + to) * NUMBERS + i;
}

static int wrong_sums(int rank, int size)
{
	int mine[2] = {rank + 1, rank * rank}, sums[2];
	MPI_Allreduce(mine, sums, 2, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
	return (sums[0] != size * (size + 1) / 2) + (sums[1] != (size - 1) * size * (2 * size - 1) / 6);
}

static int wrong_numbers(int rank, int size)
{
	int *out = calloc((size_t)size * NUMBERS, sizeof(int)),
	    *in = calloc((size_t)size * NUMBERS, sizeof(int));
	int wrong = 0;
	if (!out || !in)
		MPI_Abort(MPI_COMM_WORLD, 2);
	for (int k = 0; k < size * NUMBERS; k++)
		out[k] = number(rank, k / NUMBERS, k % NUMBERS);
	MPI_Alltoall(out, NUMBERS, MPI_INT, in, NUMBERS, MPI_INT, MPI_COMM_WORLD);
	for (int k = 0; k < size * NUMBERS; k++)
		wrong += in[k] != number(k / NUMBERS, rank, k % NUMBERS);
	free(out);
	free(in);
	return wrong;
}

int main(int argc, char **argv)
{
	char host[MPI_MAX_PROCESSOR_NAME];
	int rank, size, len, wrong;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &size);
	MPI_Get_processor_name(host, &len);
	wait_for_all();
	wrong = wrong_sums(rank, size) + wrong_numbers(rank, size);
	if (wrong)
		printf("rank %d of %d on %s: %d numbers are wrong\n", rank, size, host, wrong);
	else
		printf("rank %d of %d on %s: all numbers are right\n", rank, size, host);
	wait_for_all();
	MPI_Finalize();
	return wrong != 0;
}
