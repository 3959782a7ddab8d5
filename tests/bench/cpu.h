/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU time of a server in seconds: of the process and of the children it has and had. */
#ifndef TESTS_BENCH_CPU_H
#define TESTS_BENCH_CPU_H

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline bool cpu_stat(int pid, int *parent, double *cpu)
{
	unsigned long user, sys, child_user, child_sys;
	char path[64], buf[1024], *p;
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	if (!f)
		return false;
	n = fread(buf, 1, sizeof(buf) - 1, f);
	fclose(f);
	buf[n] = 0;
	p = strrchr(buf, ')');
	if (!p || sscanf(p + 2, "%*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %lu %lu",
			 parent, &user, &sys, &child_user, &child_sys) != 5)
		return false;
	*cpu = (double)(user + sys + child_user + child_sys) / (double)sysconf(_SC_CLK_TCK);
	return true;
}

/* 0 for no such process. */
static inline double cpu_of(int pid)
{
	double sum = 0, cpu;
	DIR *proc = opendir("/proc");
	struct dirent *e;
	int parent;

	if (pid > 0 && cpu_stat(pid, &parent, &cpu))
		sum = cpu;
	while (pid > 0 && proc && (e = readdir(proc))) {
		int p = atoi(e->d_name);

		if (p > 0 && p != pid && cpu_stat(p, &parent, &cpu) && parent == pid)
			sum += cpu_of(p);
	}
	if (proc)
		closedir(proc);
	return sum;
}

#endif
