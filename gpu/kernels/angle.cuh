// The angle between two directions from delta = 1 - cos, and sin - angle cos of it.
//
// With near = min(delta, 2 - delta), the angle is sqrt(2 near) P and the gap sqrt(2 near) near Q;
// P and Q are polynomials in 2 near - 1, relatively accurate to 2e-8 in single and 2e-17 in double
// precision, so that neither result loses digits as delta goes to 0. No libm call is made.
#pragma once

// The polynomials, chosen by the type of the numbers.
template <class V> DEVICE void angle_series(const V& x, V& p_out, V& q_out, float) {
    typedef float R;
    V p = x * (R)6.693968704e-6 + (R)2.486407567e-5;
    p = p * x + (R)8.238040211e-5;
    p = p * x + (R)0.0003385867681;
    p = p * x + (R)0.001519798933;
    p = p * x + (R)0.007799363946;
    p = p * x + (R)0.05375148951;
    p = p * x + (R)1.047197537;
    V q = x * (R)2.590567082e-6 + (R)1.164988794e-5;
    q = q * x + (R)5.21945882e-5;
    q = q * x + (R)0.0002906638601;
    q = q * x + (R)0.00197867989;
    q = q * x + (R)0.01991773334;
    q = q * x + (R)0.6848532564;
    p_out = p;
    q_out = q;
}

template <class V> DEVICE void angle_series(const V& x, V& p_out, V& q_out, double) {
    typedef double R;
    V p = x * (R)1.2940879049185151e-11 + (R)4.2076793539896452e-11;
    p = p * x + (R)7.597606552881002e-11;
    p = p * x + (R)2.5144283316259467e-10;
    p = p * x + (R)9.6069862577785243e-10;
    p = p * x + (R)3.2125465398641488e-9;
    p = p * x + (R)1.0699801762268182e-8;
    p = p * x + (R)3.646596273974707e-8;
    p = p * x + (R)1.2584618618630428e-7;
    p = p * x + (R)4.4020759045131911e-7;
    p = p * x + (R)1.5669625983394027e-6;
    p = p * x + (R)5.7017810750766653e-6;
    p = p * x + (R)2.1345552606067018e-5;
    p = p * x + (R)8.3023178191402653e-5;
    p = p * x + (R)0.00034086372341636921;
    p = p * x + (R)0.001519668539582746;
    p = p * x + (R)0.0077989022389737349;
    p = p * x + (R)0.053751493591327181;
    p = p * x + (R)1.0471975511965977;
    V q = x * (R)1.6539899795965228e-12 + (R)5.7141555271451239e-12;
    q = q * x + (R)1.2468194494137464e-11;
    q = q * x + (R)4.4343667241030218e-11;
    q = q * x + (R)1.7359452479010135e-10;
    q = q * x + (R)6.3102662534359682e-10;
    q = q * x + (R)2.3166349964699629e-9;
    q = q * x + (R)8.7239407121583924e-9;
    q = q * x + (R)3.3613030490328909e-8;
    q = q * x + (R)1.331006417827932e-7;
    q = q * x + (R)5.4552759511654588e-7;
    q = q * x + (R)2.3369143732289924e-6;
    q = q * x + (R)1.0615644724132273e-5;
    q = q * x + (R)5.2324636347549987e-5;
    q = q * x + (R)0.00029119333206055662;
    q = q * x + (R)0.0019786634979398184;
    q = q * x + (R)0.019917666638178426;
    q = q * x + (R)0.68485325637227955;
    p_out = p;
    q_out = q;
}

template <class V> DEVICE void angle_and_gap(const V& delta, V& theta, V& gap) {
    typedef typename real_of<V>::type R;
    const R pi = (R)3.14159265358979323846;
    const V other = (R)2 - delta;
    // Rounding may leave delta a little below 0 or above 2.
    const V near = greater(lesser(delta, other), constant<V>(0));
    const V twice = near + near;
    V p, q;
    angle_series(twice - (R)1, p, q, R());
    const V r = root(twice);
    const V small = r * p, part = r * near;
    const auto far = delta > (R)1;
    theta = choose(far, pi - small, small);
    gap = part * q + choose(far, pi - pi * near, constant<V>(0));
}
