#include "apps/html.h"

#include <cstdint>

#include "core/error.h"
#include "datasets/image_io.h"

namespace limbeck::apps {
namespace {

std::string base64(std::string_view bytes) {
  constexpr const char* kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t word = 0;
    for (std::size_t k = 0; k < 3; ++k) {
      word = word << 8U | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0U);
    }
    for (std::size_t k = 0; k < 4; ++k) out += i + k > bytes.size() ? '=' : kDigits[word >> (18U - 6U * k) & 63U];
  }
  return out;
}

}  // namespace

std::string html_escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string html_begin(std::string_view title) {
  const std::string name = html_escape(title);
  return "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>" + name +
         "</title>\n<style>\n"
         "body{font:15px/1.45 system-ui,sans-serif;max-width:1300px;margin:2em auto;padding:0 1em;color:#222}\n"
         "svg text{font:11px system-ui,sans-serif;fill:#333} svg .title{font-size:13px;font-weight:600}\n"
         "svg .grid{stroke:#e4e4e4} table{border-collapse:collapse} th{text-align:left;padding-right:1.5em;"
         "vertical-align:top;font-weight:600} td,th{border-bottom:1px solid #eee;padding:.2em .6em .2em 0}\n"
         "td.number{text-align:right;font-variant-numeric:tabular-nums}\n"
         "img{max-width:100%;display:block;margin:.6em 0;image-rendering:pixelated}\n"
         "</style></head><body>\n<h1>" +
         name + "</h1>\n";
}

std::string html_end() { return "</body></html>\n"; }

std::string html_png(std::string_view alt, std::string_view png) {
  return fmt::format("<img alt=\"{}\" src=\"data:image/png;base64,{}\">\n", html_escape(alt), base64(png));
}

std::string html_picture(std::string_view alt, const datasets::Image& image) {
  const auto png = datasets::encode_png(image);
  return html_png(alt, std::string_view(reinterpret_cast<const char*>(png.data()), png.size()));
}

}  // namespace limbeck::apps
