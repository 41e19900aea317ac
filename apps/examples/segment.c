/* segment_c MODEL WIDTH HEIGHT: reads one raw RGB picture from standard input, writes its class numbers to standard output. */
#include <limbeck_c.h>
#include <stdio.h>
#include <stdlib.h>

static int complain(const char* what) {
  fprintf(stderr, "segment_c: %s: %s\n", what, limbeck_last_error());
  return 1;
}

int main(int argc, char** argv) {
  limbeck_model* model = NULL;
  if (argc != 4) return 2;
  if (limbeck_abi() != LIMBECK_C_ABI) return complain("header and library differ");
  const int32_t width = atoi(argv[2]), height = atoi(argv[3]);
  const size_t pixels = width > 0 && height > 0 ? (size_t)width * (size_t)height : 0;
  uint8_t* rgb = malloc(3 * pixels + 1);
  uint8_t* ids = malloc(pixels + 1);
  int status = 1;
  if (rgb == NULL || ids == NULL || fread(rgb, 1, 3 * pixels, stdin) != 3 * pixels) {
    fprintf(stderr, "segment_c: the picture is incomplete\n");
  } else if (limbeck_load(argv[1], &model) != LIMBECK_OK) {
    complain("cannot load the model");
  } else if (limbeck_segment(model, rgb, 3 * pixels, height, width, ids, pixels) != LIMBECK_OK) {
    complain("cannot segment");
  } else if (fwrite(ids, 1, pixels, stdout) == pixels) {
    fprintf(stderr, "segment_c: %d classes, the middle of the picture is %s\n", (int)limbeck_class_count(model),
            limbeck_class_name(model, ids[(size_t)(height / 2) * (size_t)width + (size_t)(width / 2)]));
    status = 0;
  }
  limbeck_free(model);
  free(ids);
  free(rgb);
  return status;
}
