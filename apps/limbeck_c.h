/* What this is: limbeck for other languages: load a trained network, segment pictures. A C header without any other type.
 * What it is not: training. C++ programs have more of it in apps/model_io.h and apps/inference.h.
 * Read next: apps/examples/segment.c.
 *
 * Rules (the ABI)
 *   - Every function that can fail returns 0, or one of the codes below; limbeck_last_error() then says why, for this thread.
 *     No exception leaves a function, and none ends the program.
 *   - A handle is opaque. limbeck_free() is the only way to end it; NULL is allowed there.
 *   - Buffers belong to the caller and come with their size, which is checked before anything is written.
 *   - Threads: any function may be called from any thread. Calls on one handle wait for each other; calls on different handles
 *     run at the same time. Freeing a handle that another thread still uses is an error of the caller.
 *   - Numbers of codes, the order of arguments and the meaning of buffers do not change within LIMBECK_C_ABI.
 */
#ifndef LIMBECK_C_H
#define LIMBECK_C_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LIMBECK_C_ABI 1

typedef struct limbeck_model limbeck_model;

/* What a function returns; the numbers are those of the program's exit codes. */
enum {
  LIMBECK_OK = 0,
  LIMBECK_FAILED = 1, /* anything without a more precise code, out of memory too */
  LIMBECK_USAGE = 2,  /* an argument: NULL, a size, a network that does not segment */
  LIMBECK_DATA = 3,
  LIMBECK_WEIGHTS = 4 /* the file: missing, damaged, not of limbeck */
};

/* The LIMBECK_C_ABI the library was built with. */
int32_t limbeck_abi(void);

/* Why the last call of this thread failed; "" after a success. Valid until this thread calls again. Never NULL. */
const char* limbeck_last_error(void);

/* Loads a .safetensors file that limbeck wrote, or the best network of a run folder. `path` is UTF-8. On success *model is a
 * handle, otherwise NULL. A file that `limbeck calibrate` wrote computes in 8 bits, every other one in f32. */
int32_t limbeck_load(const char* path, limbeck_model** model);

/* Ends a handle. */
void limbeck_free(limbeck_model* model);

/* Number of classes; 0 for NULL. */
int32_t limbeck_class_count(const limbeck_model* model);

/* Name of a class in UTF-8, valid as long as the handle; NULL for a class that does not exist. */
const char* limbeck_class_name(const limbeck_model* model, int32_t index);

/* Display colour of a class: 3 bytes, red green blue. */
int32_t limbeck_class_colour(const limbeck_model* model, int32_t index, uint8_t* rgb, size_t rgb_bytes);

/* Segments a picture: rgb has height * width * 3 bytes, row by row; ids gets height * width class numbers.
 * Pictures larger than 1024 x 1024 are cut into overlapping tiles of that size, so that memory stays bounded. */
int32_t limbeck_segment(limbeck_model* model, const uint8_t* rgb, size_t rgb_bytes, int32_t height, int32_t width,
                        uint8_t* ids, size_t ids_bytes);

/* The scores behind the classes: scores[(k * height + y) * width + x], class_count * height * width numbers. Not tiled. */
int32_t limbeck_scores(limbeck_model* model, const uint8_t* rgb, size_t rgb_bytes, int32_t height, int32_t width,
                       float* scores, size_t scores_count);

#ifdef __cplusplus
}
#endif

#endif
