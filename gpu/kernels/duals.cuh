// What an activation makes of a covariance: value = E phi(u) phi(v), slope = E phi'(u) phi'(v) for
// Gaussians of variances q1, q2 and covariance s. In float64: the next layer's angle is the square
// root of a difference of these.
#pragma once

#define PI 3.14159265358979323846

struct dual { double value, slope; };

// a min(x, 0)^n + b max(x, 0)^n for n = 0 and 2; n = 1 has the delta form of its own.
DEVICE dual dual_step(double q1, double q2, double delta, double theta, double a, double b) {
    return {((a * a + b * b) * (PI - theta) + 2 * a * b * theta) / (2 * PI), 0.0};
}
DEVICE dual dual_square(double q1, double q2, double delta, double theta, double a, double b) {
    const double w = sqrt(q1) * sqrt(q2), c = 1 - delta, sine = sqrt(delta * (2 - delta));
    const double first = sine + (PI - theta) * c, first_rest = PI * c - first;
    const double second = 3 * sine * c + (PI - theta) * (1 + 2 * c * c);
    const double second_rest = PI * (1 + 2 * c * c) - second;
    const double squares = (a * a + b * b) / (2 * PI), cross = a * b / PI;
    return {w * w * (squares * second + cross * second_rest),
            4 * w * (squares * first + cross * first_rest)};
}

// a erf(b x) + c
DEVICE dual dual_erf(double q1, double q2, double delta, double a, double b, double c) {
    const double x1 = 2 * b * b * q1, x2 = 2 * b * b * q2;
    const double t = 2 * b * b * sqrt(q1) * sqrt(q2) * (1 - delta);
    const double norm = sqrt(1 + x1 + x2 + x1 * x2 * delta * (2 - delta));
    return {a * a * 2 / PI * atan2(t, norm) + c * c, a * a * b * b * 4 / PI / norm};
}

// x Phi(x); Tsuchida et al., arXiv 2002.08517.
DEVICE dual dual_gelu(double q1, double q2, double delta) {
    const double s = sqrt(q1) * sqrt(q2) * (1 - delta), product = q1 * q2;
    const double norm = (1 + q1) * (1 + q2);
    const double r = sqrt(1 + q1 + q2 + product * delta * (2 - delta)), angle = atan2(s, r);
    const double value = (s * angle + (s * s + product * r * r) / (norm * r)) / (2 * PI);
    const double rest = 1 / (r * r) + (1 - product) / norm + 1;
    return {0.25 * s + value, 0.25 + (angle + s / r * rest) / (2 * PI)};
}

// A term p cos^order of a series whose order is high, felt just before cos = 1, and just before -1
// with the parity of the function: the term, its slope in cos, and its drop from cos = 1.
struct far_term { double value, slope, drop; };
DEVICE far_term dual_far(double p, double order, double parity, double delta) {
    const double c = 1 - delta, logs = order * log1p(-lesser(delta, 1.0));
    const double near = exp(logs);
    const double back = parity * exp(order * log1p(-lesser(2 - delta, 1.0)));
    const double steep = c < 0 ? -c : c;
    return {p * (near + back), steep > 0 ? p * order * (near - back) / steep : 0.0,
            p * (-expm1(logs) - back)};
}

// a sin(b x + c); a cosine is a sine with c = pi / 2.
DEVICE dual dual_sine(double q1, double q2, double delta, double a, double b, double twice) {
    const double w = sqrt(q1) * sqrt(q2), step = sqrt(q1) - sqrt(q2);
    const double near = exp(-0.5 * b * b * (step * step + 2 * w * delta));
    const double far = twice * exp(-0.5 * b * b * (step * step + 2 * w * (2 - delta)));
    return {0.5 * a * a * (near - far), 0.5 * a * a * b * b * (near + far)};
}

// a exp(b x)
DEVICE dual dual_exp(double q1, double q2, double delta, double a, double b) {
    const double w = sqrt(q1) * sqrt(q2), step = sqrt(q1) - sqrt(q2);
    const double value = a * a * exp(0.5 * b * b * (step * step + 2 * w * (2 - delta)));
    return {value, b * b * value};
}
